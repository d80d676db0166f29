// Sorts and filters tables, filters cards by tag, opens figures, and shows the outputs
// of the machine that a reader chose. Pages are whole without it.
"use strict";

function sortable(table) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const cell = (row) => row.cells[column];
      const key = (row) => cell(row).dataset.value ?? cell(row).textContent;
      const missing = (row) => cell(row).dataset.value === "";
      for (const body of table.tBodies) {
        [...body.querySelectorAll("tr:not(.group)")]
          .sort((a, b) => {
            // What was not measured stands last either way.
            if (missing(a) || missing(b)) return missing(a) - missing(b);
            const order = key(a).localeCompare(key(b), "en", { numeric: true });
            const difference = Number(key(a)) - Number(key(b));
            return (up ? 1 : -1) * (Number.isNaN(difference) ? order : difference);
          })
          .forEach((row) => body.append(row));
      }
    });
  });
}

function textOf(node, selector) {
  return node.querySelector(selector)?.textContent ?? "";
}

function filterTables(box) {
  const input = box.querySelector("input");
  const status = box.querySelector("[role=status]");
  const sections = [...document.querySelectorAll(".results-section")];
  box.hidden = false;
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
    let shown = 0;
    for (const section of sections) {
      // Not the title: it names the compiler, and would match for every row.
      const about = textOf(section, "caption");
      for (const body of section.querySelectorAll("tbody")) {
        const group = textOf(body, ".group");
        const rows = [...body.querySelectorAll("tr:not(.group)")];
        for (const row of rows) {
          const text = `${about} ${group} ${row.textContent}`.toLowerCase();
          row.hidden = !words.every((word) => text.includes(word));
          shown += !row.hidden;
        }
        body.hidden = rows.every((row) => row.hidden);
      }
      section.hidden = ![...section.querySelectorAll("tbody")].some((e) => !e.hidden);
    }
    status.textContent = words.length ? `${shown} rows` : "";
  });
}

function filterCards(box) {
  const buttons = [...box.querySelectorAll("button")];
  const status = box.querySelector("[role=status]");
  box.hidden = false;
  box.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
    const wanted = buttons
      .filter((each) => each.getAttribute("aria-pressed") === "true")
      .map((each) => each.value);
    let shown = 0;
    for (const section of document.querySelectorAll(".path-section")) {
      let any = false;
      for (const card of section.querySelectorAll(".tutorial-card")) {
        const tags = [...card.querySelectorAll(".sd-badge")].map((e) => e.textContent);
        const fits = wanted.every((tag) => tags.includes(tag));
        card.parentElement.hidden = !fits;
        any ||= fits;
        shown += fits;
      }
      section.hidden = !any;
    }
    status.textContent = wanted.length ? `${shown} tutorials` : "";
  });
}

// On a phone, letters in a figure are small: a tap shows it alone.
function openable(figure) {
  const link = document.createElement("a");
  link.href = figure.src;
  figure.replaceWith(link);
  link.append(figure);
}

// A browser may forbid to keep anything; then the choice holds for the page.
function kept(value) {
  try {
    if (value) localStorage.setItem("gallery-machine", value);
    return localStorage.getItem("gallery-machine");
  } catch {
    return value;
  }
}

function chooseMachine(box) {
  const buttons = [...box.querySelectorAll("button")];
  const show = (name) => {
    for (const node of document.querySelectorAll(".on-machine")) {
      node.classList.toggle("shown-machine", node.classList.contains(`on-${name}`));
    }
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.machine === name));
    }
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      show(button.dataset.machine);
      kept(button.dataset.machine);
    });
  }
  const chosen = kept();
  if (buttons.some((button) => button.dataset.machine === chosen)) show(chosen);
  box.hidden = false;
}

document.querySelectorAll("img.recorded-figure").forEach(openable);
document.querySelectorAll(".machine-choice").forEach(chooseMachine);
document.querySelectorAll("table.benchmark").forEach(sortable);
document.querySelectorAll(".table-filter").forEach(filterTables);
document.querySelectorAll(".tag-filter").forEach(filterCards);
