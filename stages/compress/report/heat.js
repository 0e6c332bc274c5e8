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

  const hideMarks = () =>
    document.querySelectorAll("rect.chosen").forEach((rect) => rect.classList.remove("chosen"));

  // Beside the cell: below its row, within the maps.
  const place = (rect) => {
    const maps = panel.parentElement.getBoundingClientRect();
    const row = rect.ownerSVGElement.getBoundingClientRect();
    const cell = rect.getBoundingClientRect();
    const most = maps.width - panel.offsetWidth;
    panel.style.top = `${row.bottom - maps.top + 5}px`;
    panel.style.left = `${Math.max(0, Math.min(most, cell.left - maps.left - 24))}px`;
  };

  const show = (rect) => {
    const name = rect.dataset.cell;
    const cell = data.cells[name];
    panel.replaceChildren();
    panel.hidden = false;
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
    hideMarks();
    document.querySelectorAll("rect[data-cell]").forEach((other) => {
      if (other.dataset.cell === name) other.classList.add("chosen");
    });
    const figure = document.querySelector(`[data-distribution="${CSS.escape(name)}"]`);
    document.querySelectorAll("[data-distribution].chosen").forEach((each) => each.classList.remove("chosen"));
    if (figure) figure.classList.add("chosen");
    place(rect);
    panel.scrollIntoView({ block: "nearest" });
    const grid = rect.closest("[role=grid]");
    grid.querySelectorAll("rect[tabindex='0']").forEach((other) => other.setAttribute("tabindex", "-1"));
    rect.setAttribute("tabindex", "0");
    rect.focus({ preventScroll: true });
  };

  document.addEventListener("click", (event) => {
    const rect = event.target.closest("rect[data-cell]");
    if (rect) show(rect);
    else if (!event.target.closest("#cell")) panel.hidden = true;
    const button = event.target.closest("button[data-map]");
    if (!button) return;
    document.querySelectorAll("button[data-map]").forEach((each) => {
      each.setAttribute("aria-pressed", String(each === button));
    });
    document.querySelectorAll("[data-shows]").forEach((map) => {
      map.hidden = map.dataset.shows !== button.dataset.map;
    });
    hideMarks();
  });

  const columnOf = (rect) => Number(rect.getAttribute("x"));
  const nearest = (row, column) =>
    [...row.querySelectorAll("rect[data-cell]")].reduce((best, each) =>
      Math.abs(columnOf(each) - column) < Math.abs(columnOf(best) - column) ? each : best);

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      panel.hidden = true;
      return;
    }
    const rect = event.target.closest("rect[data-cell]");
    if (!rect) return;
    const row = [...rect.ownerSVGElement.querySelectorAll("rect[data-cell]")];
    const rows = [...rect.closest("[role=grid]").querySelectorAll("svg")];
    const along = row.indexOf(rect);
    const down = rows.indexOf(rect.ownerSVGElement);
    const goal = {
      ArrowLeft: () => row[Math.max(0, along - 1)],
      ArrowRight: () => row[Math.min(row.length - 1, along + 1)],
      ArrowUp: () => nearest(rows[Math.max(0, down - 1)], columnOf(rect)),
      ArrowDown: () => nearest(rows[Math.min(rows.length - 1, down + 1)], columnOf(rect)),
      Home: () => row[0],
      End: () => row[row.length - 1],
      Enter: () => rect,
      " ": () => rect,
    }[event.key];
    if (!goal) return;
    event.preventDefault();
    show(goal());
  });
})();
