"""Scripts by which bash, zsh and fish complete `presswork` and `python -m pipeline`."""

from __future__ import annotations

BASH = r"""
_presswork() {
    local run=("${1/#\~\//$HOME/}") line="${COMP_LINE:0:COMP_POINT}"
    if [[ ${COMP_WORDS[0]##*/} == python* ]]; then
        if [[ ${COMP_WORDS[1]} != -m || ${COMP_WORDS[2]} != pipeline || $COMP_CWORD -lt 3 ]]; then
            [[ -n $_presswork_python ]] && "$_presswork_python" "$@"
            return
        fi
        run+=(-m pipeline)
    fi
    local IFS=$'\n' word="${line##*[[:space:]]}" breaks="" cut
    COMPREPLY=($(COMP_LINE="$line" COMP_POINT="" "${run[@]}" -sc query=bash 2>/dev/null))
    # bash completes what follows the last = or : of the word
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+="="
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=":"
    if [[ -n $breaks && $word == *[$breaks]* ]]; then
        cut="${word%"${word##*[$breaks]}"}"
        COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    fi
    [[ ${COMPREPLY[0]} == *[=./,] ]] && compopt -o nospace 2>/dev/null
    return 0
}
if [[ $(complete -p python 2>/dev/null) =~ -F\ ([^ ]+) && ${BASH_REMATCH[1]} != _presswork ]]; then
    _presswork_python="${BASH_REMATCH[1]}"
fi
complete -F _presswork presswork
complete -o bashdefault -o default -F _presswork python python3
"""
NO_BASH = r"""
complete -r presswork python python3
[[ -n $_presswork_python ]] && complete -o bashdefault -o default -F "$_presswork_python" python
unset -f _presswork
unset _presswork_python
"""
ZSH = r"""
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_presswork() {
    local -a run got
    run=("${words[1]/#\~\//$HOME/}")
    if [[ ${words[1]:t} == python* ]]; then
        if [[ ${words[2]} != -m || ${words[3]} != pipeline || $CURRENT -lt 4 ]]; then
            autoload -Uz _python && _python "$@"
            return
        fi
        run+=(-m pipeline)
    fi
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    got=("${(@f)$(COMP_LINE="$line" COMP_POINT="" "${run[@]}" -sc query=zsh 2>/dev/null)}")
    compadd -Q -S '' -- ${(M)got:#*[=./,]}
    compadd -Q -- ${${got:#*[=./,]}:#}
}
compdef _presswork presswork python python3
"""
NO_ZSH = r"""
compdef -d presswork python python3
(( $+functions[_python] )) && compdef _python python python3
unfunction _presswork
"""
FISH = r"""
function __presswork_complete
    set -l words (commandline -opc)
    set -l run $words[1]
    string match -q -- '*python*' (path basename $words[1]); and set run $words[1] -m pipeline
    set -lx COMP_LINE (string join -- ' ' $words (commandline -ct))
    set -lx COMP_POINT ''
    $run -sc query=fish 2>/dev/null
end
function __presswork_python
    set -l words (commandline -opc)
    test (count $words) -ge 3; and test $words[2] = -m; and test $words[3] = pipeline
end
complete -c presswork -f -a '(__presswork_complete)'
complete -c python -n __presswork_python -f -a '(__presswork_complete)'
complete -c python3 -n __presswork_python -f -a '(__presswork_complete)'
"""
NO_FISH = r"""
complete -c presswork -e
complete -c python -n __presswork_python -e
complete -c python3 -n __presswork_python -e
functions -e __presswork_complete __presswork_python
"""
SCRIPTS = {"bash": (BASH, NO_BASH), "zsh": (ZSH, NO_ZSH), "fish": (FISH, NO_FISH)}


def script(shell: str, *, uninstall: bool = False) -> str | None:
    """What a shell evaluates to complete these commands, or to stop; None for another shell.

    `python` is completed as before where the words after it are not `-m pipeline`.
    """
    found = SCRIPTS.get(shell)
    return found and found[uninstall].lstrip("\n")
