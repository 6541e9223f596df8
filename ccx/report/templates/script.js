"use strict";
(() => {
  // On the page of a unit: arrows go to the units beside it.
  const isTyping = (event) => event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey;
  document.addEventListener("keydown", (event) => {
    const rel = { ArrowLeft: "prev", ArrowRight: "next", Escape: "up" }[event.key];
    const link = rel && !isTyping(event) && document.querySelector(`a[rel=${rel}]`);
    if (link) link.click();
  });

  const table = document.querySelector(".contents");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const cards = document.querySelector(".cards");
  const controls = document.querySelector(".controls");
  const input = controls.querySelector("input");
  const count = controls.querySelector(".count");
  const cardOf = new Map();
  if (cards) for (const row of rows) cardOf.set(row, document.getElementById(row.querySelector("a").hash.slice(1)));

  // Cards keep the order of the rows, and hide with them.
  const show = () => {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.dataset.words.includes(wanted);
      if (cards) cardOf.get(row).hidden = row.hidden;
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length}`;
  };
  const sort = (key, sign) => {
    rows.sort((a, b) => sign * (a.dataset[key] - b.dataset[key]) || a.dataset.unit - b.dataset.unit);
    body.append(...rows);
    if (cards) cards.append(...rows.map((row) => cardOf.get(row)));
  };
  for (const head of table.querySelectorAll("[data-sort]")) {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    button.title = "sort";
    button.addEventListener("click", () => {
      const first = head.dataset.sort === "unit" ? "ascending" : "descending";
      const second = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? second : first;
      for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      sort(head.dataset.sort, order === "ascending" ? 1 : -1);
    });
    head.replaceChildren(button);
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || isTyping(event)) return;
    event.preventDefault();
    input.focus();
  });
  controls.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("input", show);
  controls.hidden = false;
  show();
})();
