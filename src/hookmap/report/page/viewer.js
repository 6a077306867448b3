// One heatmap large, with everything that its row says.

const groups = Map.groupBy(data.columns, ([, group]) => group);

function cell(name, unit, row) {
  const value = table[name][row];
  if (unit === "share") return percent(value, 1);
  if (unit === "pixels") return `${Number(value.toFixed(1))}\u2009px`;
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "number" ? (unit === "number" ? String(value) : plain(value)) : value;
}

const viewer = (() => {
  let rows = [];
  let at = 0;
  const dialog = document.getElementById("viewer");
  const title = element("h2", { id: "viewer-title" });
  const place = element("span", { class: "where", "aria-live": "polite" });
  const stage = element("div", { class: "stage" });
  const facts = element("div", { class: "facts", tabindex: "0", "aria-label": "All columns of this heatmap" });
  const button = (text, action, label) =>
    element("button", { type: "button", onclick: action, "aria-label": label }, text);
  const [back, on] = [button("Previous", () => show(at - 1)), button("Next", () => show(at + 1))];
  const heat = element("input", {
    type: "range",
    min: "0",
    max: "100",
    oninput: (event) => gallery.opacity(event.target.value),
  });
  const marks = element("input", {
    type: "checkbox",
    checked: true,
    onchange: () => dialog.classList.toggle("unmarked", !marks.checked),
  });
  dialog.append(
    element(
      "header",
      {},
      title,
      element(
        "div",
        { class: "pager" },
        back,
        place,
        on,
        button("Close", () => dialog.close()),
      ),
    ),
    element(
      "div",
      { class: "open" },
      element(
        "div",
        {},
        stage,
        element(
          "div",
          { class: "controls" },
          element("label", { class: "field" }, element("span", {}, "Heat"), heat),
          element("label", { class: "check" }, marks, " peak and box"),
        ),
      ),
      facts,
    ),
  );

  function show(to) {
    at = Math.min(Math.max(0, to), rows.length - 1);
    const row = rows[at];
    title.textContent = `${targetOf(row)} ${sureOf(row)}`;
    place.textContent = `${whole(at + 1)} of ${whole(rows.length)}`;
    back.disabled = at === 0;
    on.disabled = at === rows.length - 1;
    heat.value = gallery.heat();
    const frame = overlaid(row, { longer: 480, alt: described(row) });
    if (known(table.peak_x[row])) frame.append(peakOf(row));
    stage.replaceChildren(
      frame,
      ...(data.steps[row] ? [element("p", { class: "below" }, `A clip: the sum over its ${data.steps[row]} steps.`)] : []),
    );
    facts.replaceChildren(
      ...[...groups].flatMap(([name, columns]) => {
        const there = columns.filter(([column]) => known(table[column][row]));
        const lines = there.flatMap(([column, , unit]) => [
          element("dt", {}, column),
          element("dd", { class: typeof table[column][row] === "string" ? "text" : "number" }, cell(column, unit, row)),
        ]);
        return there.length ? [element("h3", {}, name), element("dl", {}, ...lines)] : [];
      }),
    );
    facts.scrollTop = 0;
  }

  dialog.addEventListener("keydown", (event) => {
    if (event.target === heat && /^Arrow|Home|End/.test(event.key)) return;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    show(to);
  });
  closedOutside(dialog);

  return {
    open(all, first) {
      rows = all;
      show(first);
      dialog.showModal();
    },
  };
})();
