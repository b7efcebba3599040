"use strict";

// A click on the head of a column sorts its table, a second one the other way round, a third one as it was.
(() => {
  // 0.25 ± 0.03, [−1.2, +0.4], <0.0001, 1,200: a text counts as the number that it begins with
  const NUMBER = /^[[(\s]*(<?)\s*([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?)/i;
  const NEXT = { none: "ascending", ascending: "descending", descending: "none" };
  const BY_LETTER = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  const isMissing = (text) => text === "" || /^[—–]/.test(text);

  const numberOf = (text) => {
    const found = NUMBER.exec(text.replaceAll("\u2212", "-"));
    if (!found) return NaN;
    const value = Number(found[2].replaceAll(",", ""));
    return found[1] ? value - Math.abs(value) * 1e-9 : value;
  };

  const sort = (body, rows, column, order) => {
    const texts = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
    const known = [...texts.values()].filter((text) => !isMissing(text));
    const numeric = known.every((text) => !Number.isNaN(numberOf(text)));
    const compare = numeric ? (a, b) => numberOf(a) - numberOf(b) : BY_LETTER.compare;
    const sign = order === "descending" ? -1 : 1;
    const sorted = order === "none" ? rows : [...rows].sort((one, other) => {
      const [a, b] = [texts.get(one), texts.get(other)];
      // what is missing comes last either way; equal rows stay as they were
      return isMissing(a) || isMissing(b) ? isMissing(a) - isMissing(b) : sign * compare(a, b);
    });
    body.append(...sorted);
  };

  for (const table of document.querySelectorAll("table")) {
    const [body] = table.tBodies;
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    if (rows.length < 2) continue;
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      head.addEventListener("click", () => {
        const order = NEXT[head.getAttribute("aria-sort")];
        heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
        sort(body, rows, column, order);
      });
    });
  }
})();

// Paper can't be unfolded: whatever is folded is printed, and folded again afterwards.
(() => {
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));
})();

// MLflow shows an artifact in a frame that may go nowhere, not even to its own sections.
if (location.protocol === "blob:") {
  for (const link of document.querySelectorAll("nav a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      document.querySelector(link.hash).scrollIntoView();
    });
  }
}
