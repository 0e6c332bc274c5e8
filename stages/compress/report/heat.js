(() => {
  const source = document.getElementById("cells");
  const panel = document.getElementById("cell");
  if (!source || !panel) return;
  const data = JSON.parse(source.textContent);

  const make = (tag, text, parent) => {
    const node = document.createElement(tag);
    node.textContent = text;
    parent.append(node);
    return node;
  };
  const number = (value) => (value === null ? "-" : Number(value.toPrecision(3)).toString());

  const table = (headings, rows) => {
    const made = make("table", "", panel);
    const head = make("tr", "", make("thead", "", made));
    headings.forEach((heading) => make("th", heading, head));
    const body = make("tbody", "", made);
    rows.forEach((cells) => {
      const row = make("tr", "", body);
      cells.forEach((cell, place) => make(place ? "td" : "th", cell, row));
    });
  };

  const facts = (cell) => {
    const list = make("dl", "", panel);
    Object.entries(cell).forEach(([name, value]) => {
      if (value === null || value === "") return;
      make("dt", name, list);
      make("dd", typeof value === "number" ? number(value) : value, list);
    });
  };

  const show = (name) => {
    const cell = data.cells[name];
    panel.replaceChildren();
    make("h3", name, panel);
    if (data.kind === "candidates") {
      const rows = Object.entries(cell).sort((one, other) => one[1].bits - other[1].bits);
      table(
        ["candidate", "bits", "relative error"],
        rows.map(([id, it]) => [data.labels[id], number(it.bits), number(it.relative_error)]),
      );
    } else {
      facts(cell);
    }
    document.querySelectorAll("rect.chosen").forEach((rect) => rect.classList.remove("chosen"));
    document.querySelectorAll("rect[data-cell]").forEach((rect) => {
      if (rect.dataset.cell === name) rect.classList.add("chosen");
    });
    const figure = document.querySelector(`[data-distribution="${CSS.escape(name)}"]`);
    document.querySelectorAll("[data-distribution].chosen").forEach((each) => each.classList.remove("chosen"));
    if (figure) figure.classList.add("chosen");
  };

  document.addEventListener("click", (event) => {
    const rect = event.target.closest("rect[data-cell]");
    if (rect) show(rect.dataset.cell);
    const button = event.target.closest("button[data-map]");
    if (!button) return;
    document.querySelectorAll("button[data-map]").forEach((each) => {
      each.setAttribute("aria-pressed", String(each === button));
    });
    document.querySelectorAll("[data-shows]").forEach((map) => {
      map.hidden = map.dataset.shows !== button.dataset.map;
    });
  });

  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const row = event.target.closest(".heat svg");
    if (!step || !row) return;
    event.preventDefault();
    const cells = [...row.querySelectorAll("rect[data-cell]")];
    const now = cells.findIndex((cell) => cell.classList.contains("chosen"));
    const next = cells[Math.min(cells.length - 1, Math.max(0, now + step))];
    if (next) show(next.dataset.cell);
  });
})();
