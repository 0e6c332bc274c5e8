// Folds that start closed on a phone, and buttons that copy what they stand beside.
(() => {
  if (matchMedia("(max-width: 560px)").matches) {
    document.querySelectorAll("details.fold").forEach((fold) => { fold.open = false; });
  }
  document.querySelectorAll("button[data-copy]").forEach((button) => {
    const source = document.getElementById(button.dataset.copy);
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);  // the clipboard is shut: one key is left
        button.textContent = "Selected";
      }
    });
  });
})();
