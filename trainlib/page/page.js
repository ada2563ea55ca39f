"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const MARK = "[data-value], button[data-tip]";
  const tip = document.getElementById("tip");
  const root = document.documentElement;
  const all = (where, what) => [...where.querySelectorAll(what)];
  const counted = (number) => number.toLocaleString("en-US");

  // -- light and dark: as the reader's system has it, until told otherwise
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = document.getElementById("theme");
  let chosen = null;
  const paint = () => {
    if (chosen) root.dataset.theme = chosen;
    theme.textContent = (chosen ?? (dark.matches ? "dark" : "light")) === "dark" ? "light" : "dark";
  };
  theme.addEventListener("click", () => {
    chosen = theme.textContent;
    paint();
  });
  dark.addEventListener("change", paint);
  paint();

  // -- what a mark says
  const seriesOf = (mark) =>
    mark.closest("figure")?.querySelector(`.legend button[data-k="${mark.dataset.k}"] span`)?.textContent ?? "";
  const rowText = (figure, row) => {
    const cells = [...figure.querySelectorAll("tbody tr")[row].cells];
    return cells.map((cell, place) => `${figure.querySelectorAll("th")[place].textContent}: ${cell.textContent}`).join("\n");
  };
  const textOf = (mark) => {
    if (mark.dataset.tip) return mark.dataset.tip;
    if (mark.dataset.row) return rowText(mark.closest("figure"), Number(mark.dataset.row));
    const row = mark.closest(".row");
    const value = Number(mark.dataset.value);
    const unit = mark.closest("figure").dataset.unit ?? "";
    const total = Number(row?.dataset.total);
    const share = total ? `, ${((100 * value) / total).toFixed(1)} %` : "";
    return [row?.dataset.name, seriesOf(mark), `${counted(value)} ${unit}${share}`].filter(Boolean).join("\n");
  };
  let now = null;
  const leave = () => {
    now?.classList.remove("now");
    now = null;
    tip.hidden = true;
  };
  const show = (mark, x, y) => {
    if (mark !== now) {
      leave();
      now = mark;
      if (mark.matches("[data-value]")) mark.classList.add("now");
      tip.textContent = textOf(mark);
    }
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(x + 14, 6), innerWidth - box.width - 6);
    const below = y + 18 + box.height < innerHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${below ? y + 18 : Math.max(y - box.height - 12, 6)}px`;
  };
  const pointed = (event) => {
    const mark = event.target.closest?.(MARK);
    if (mark) show(mark, event.clientX, event.clientY);
    else leave();
  };
  document.addEventListener("pointermove", pointed);
  document.addEventListener("pointerdown", pointed);
  document.addEventListener("scroll", leave, { passive: true });

  // -- by keyboard: a picture takes the focus, arrows go from mark to mark
  const step = (svg, by) => {
    const marks = all(svg, "[data-value]");
    const at = marks.indexOf(now);
    const next = marks[at < 0 ? (by > 0 ? 0 : marks.length - 1) : (at + by + marks.length) % marks.length];
    if (!next) return;
    const box = next.getBoundingClientRect();
    show(next, box.left + box.width / 2, box.bottom);
  };
  const KEYS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave();
    const svg = event.target.closest?.("svg[role=img]");
    if (!svg || !(event.key in KEYS)) return;
    event.preventDefault();
    step(svg, KEYS[event.key]);
  });
  document.addEventListener("focusin", (event) => {
    const button = event.target.closest?.("button[data-tip]");
    if (button && button.matches(":focus-visible")) {
      const box = button.getBoundingClientRect();
      show(button, box.left, box.bottom);
    }
  });
  document.addEventListener("focusout", leave);
  // A picture's <title> would be shown wherever a pointer rests: readers of screens get it as a label.
  for (const svg of all(document, "svg[role=img]")) {
    const title = svg.querySelector("title");
    svg.setAttribute("aria-label", title.textContent);
    svg.setAttribute("aria-describedby", svg.querySelector("desc").id);
    svg.removeAttribute("aria-labelledby");
    title.remove();
  }

  // -- the legend: one colour alone
  for (const button of all(document, ".legend button")) {
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      const figure = button.closest("figure");
      const on = button.getAttribute("aria-pressed") !== "true";
      for (const other of all(figure, ".legend button")) other.setAttribute("aria-pressed", String(on && other === button));
      figure.dataset.only = on ? button.dataset.k : "";
      choose(figure);
    });
  }
  const choose = (figure) => {
    const only = figure.dataset.only ?? "";
    figure.classList.toggle("only", only !== "");
    for (const mark of all(figure, ".plot [data-k]")) mark.classList.toggle("chosen", mark.dataset.k === only);
  };

  // -- the tools
  const DO = {
    share(figure, on) {
      figure.classList.toggle("share", on);
      for (const row of all(figure, ".row")) {
        const inner = row.querySelector("svg");
        const width = on ? "100%" : inner.dataset.width;
        inner.setAttribute("width", width);
        row.querySelector(".total").setAttribute("x", width);
      }
    },
    sort(figure, on) {
      const rows = all(figure, ".row");
      rows.forEach((row, place) => {
        row.dataset.place ??= place;
        row.setAttribute("transform", `translate(0 ${20 * (on ? row.dataset.rank : row.dataset.place) + 3})`);
      });
      const by = on ? "rank" : "place";
      rows.sort((one, other) => one.dataset[by] - other.dataset[by]);
      for (const row of rows) row.parentNode.append(row);
    },
  };
  for (const button of all(document, ".tools button"))
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      DO[button.dataset.do](button.closest("figure"), on);
    });

  // -- core by core: the bars of one step
  const picker = document.querySelector('select[data-do="phase"]');
  picker?.addEventListener("change", () => {
    const data = JSON.parse(document.getElementById("cores-data").textContent);
    const figure = document.getElementById("cores");
    const numbers = picker.value < 0 ? data.all : data.phases[picker.value];
    const cells = all(figure, "tbody tr");
    const of = (cause, core) => (numbers[cause] ? numbers[cause][core] : 0);
    const rows = all(figure, ".row");
    const sums = rows.map((_, core) => data.k.reduce((sum, _, cause) => sum + of(cause, core), 0));
    const longest = Math.max(1, ...sums);
    figure.classList.toggle("picked", picker.value >= 0);
    rows.forEach((row, core) => {
      const inner = row.querySelector("svg");
      let at = 0;
      inner.replaceChildren();
      inner.setAttribute("width", `${(100 * sums[core]) / longest}%`);
      row.dataset.total = sums[core];
      row.querySelector(".total").textContent = counted(sums[core]);
      row.querySelector(".total").setAttribute("x", inner.getAttribute("width"));
      data.k.forEach((k, cause) => {
        const value = of(cause, core);
        cells[core].children[cause + 1].textContent = counted(value);
        if (!value) return;
        const mark = document.createElementNS(SVG, "rect");
        const places = { x: `${(100 * at) / sums[core]}%`, width: `${(100 * value) / sums[core]}%`, height: 14 };
        for (const [name, place] of Object.entries(places)) mark.setAttribute(name, place);
        mark.dataset.k = k;
        mark.dataset.value = value;
        inner.append(mark);
        at += value;
      });
    });
    choose(figure);
  });
})();
