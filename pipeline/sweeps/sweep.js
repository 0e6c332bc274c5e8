// Sorting of the leaderboard, and the way from a point of the plot to its row.
(() => {
  const board = document.querySelector("table.board");
  if (!board) return;
  const body = board.tBodies[0];
  const heads = [...board.tHead.rows[0].cells];

  const compare = (column, numeric, sign) => (one, other) => {
    const [a, b] = [one, other].map((row) => row.cells[column].dataset.value);
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
  };

  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = head.classList.contains("num");
      const rows = [...body.rows].sort(compare(column, numeric, down ? -1 : 1));
      body.append(...rows);
    });
  });

  document.querySelectorAll("circle[data-job]").forEach((point) => {
    point.addEventListener("click", () => {
      [...body.rows].forEach((row) =>
        row.classList.toggle("chosen", row.dataset.job === point.dataset.job));
      body.querySelector("tr.chosen")?.scrollIntoView({ block: "nearest" });
    });
  });
})();
