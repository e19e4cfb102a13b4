"use strict";
/* Sorting, filtering and opening what a link leads to. Without it the page is whole, only still. */
(function () {
  const number = (text) => {
    const found = /^[−-]?[\d\u202f]*\.?\d+(e[+-]?\d+)?/.exec(text.trim());
    return found ? parseFloat(found[0].replace(/\u202f/g, "").replace("−", "-")) : NaN;
  };
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.v ?? cell.innerText;
    const parsed = number(text);
    return cell.classList.contains("count") ? (Number.isNaN(parsed) ? -Infinity : parsed) : text;
  };

  function sort(table, header, column) {
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    const compare = (a, b) => typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    rows.sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
    body.append(...rows.map(([, row]) => row));
  }

  function sortable(table) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => sort(table, header, column));
    });
  }

  function filterable(box) {
    const bar = box.querySelector(".filters-own");
    const [text, outcome, told] = ["input", "select", "output"].map((name) => bar.querySelector(name));
    const tables = [...box.querySelectorAll("table.filterable")];
    bar.hidden = false;
    const apply = () => {
      const wanted = text.value.trim().toLowerCase();
      let shown = 0, all = 0;
      for (const table of tables) {
        let mine = 0;
        for (const row of table.tBodies[0].rows) {
          const holds = (!outcome.value || row.dataset.outcome === outcome.value) &&
            (!wanted || row.textContent.toLowerCase().includes(wanted));
          row.hidden = !holds;
          mine += holds;
          all += 1;
        }
        table.parentElement.hidden = mine === 0;
        shown += mine;
      }
      told.textContent = wanted || outcome.value ? `${shown} of ${all} shown` : "";
    };
    text.addEventListener("input", apply);
    outcome.addEventListener("change", apply);
  }

  function reveal() {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const details = target && target.closest("details");
    if (!details) return;
    details.open = true;
    target.scrollIntoView();
    target.focus({ preventScroll: true });
  }

  const root = document.querySelector(".acceptance-report");
  root.querySelectorAll("table.sortable").forEach(sortable);
  root.querySelectorAll(".filtered").forEach(filterable);
  addEventListener("hashchange", reveal);
  reveal();
})();
