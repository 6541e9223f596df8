"use strict";
(() => {
  const table = document.querySelector(".contents");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const cards = document.querySelector(".cards");
  const controls = document.querySelector(".controls");
  const input = controls.querySelector("input");
  const count = controls.querySelector(".count");
  const cardOf = new Map(rows.map((row) => [row, document.getElementById(row.querySelector("a").hash.slice(1))]));

  // Cards keep the order of the rows, and hide with them.
  const show = () => {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = cardOf.get(row).hidden = !row.dataset.words.includes(wanted);
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length}`;
  };
  const sort = (key, sign) => {
    rows.sort((a, b) => sign * (a.dataset[key] - b.dataset[key]) || a.dataset.unit - b.dataset.unit);
    for (const row of rows) {
      body.append(row);
      cards.append(cardOf.get(row));
    }
  };
  for (const head of table.querySelectorAll("[data-sort]")) {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    button.title = "sort";
    button.addEventListener("click", () => sort(head.dataset.sort, head.dataset.sort === "unit" ? 1 : -1));
    head.replaceChildren(button);
  }
  controls.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("input", show);
  controls.hidden = false;
  show();
})();
