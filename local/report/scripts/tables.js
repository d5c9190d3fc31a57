// A heading's button sorts its table; a second press turns the order. Rows without data stay last.
(function () {
  function valueOf(row, index) {
    const cell = row.cells[index];
    if (cell.classList.contains("none")) return null;
    return "sort" in cell.dataset ? Number(cell.dataset.sort) : cell.textContent;
  }
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  }
  function sort(table, head) {
    const numeric = head.classList.contains("n");
    const current = head.getAttribute("aria-sort");
    // Numbers start with the largest, words with the first.
    const first = numeric ? "descending" : "ascending";
    const second = numeric ? "ascending" : "descending";
    const order = current === first ? second : first;
    const sign = order === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => ({ row, value: valueOf(row, head.cellIndex) }));
    rows.sort((a, b) => {
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
      return sign * compare(a.value, b.value);
    });
    for (const other of head.parentNode.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", order);
    body.append(...rows.map((item) => item.row));
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const head of table.tHead.rows[0].cells) {
      head.querySelector("button").addEventListener("click", () => sort(table, head));
    }
  }
})();
