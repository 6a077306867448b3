// One heatmap large, with everything that its row says.

const groups = [
  ["Image", ["id", "width", "height", "label", "label_index", "truth"]],
  ["Prediction", ["prediction", "prediction_index", "probability", "correct"]],
  ["Target", ["asked", "target", "target_index", "target_score", "target_probability", "where", "iou"]],
  [
    "Where the heat lies",
    [
      "half_area",
      "entropy",
      "border",
      "corner",
      "in_box",
      "box_share",
      "in_mask",
      "mask_share",
      "peak_x",
      "peak_y",
      "centre_x",
      "centre_y",
    ],
  ],
  [
    "Map",
    [
      "method",
      "layer",
      "part",
      "heatmap",
      "map_least",
      "map_most",
      "map_mean",
      "map_scale",
      "grid_left",
      "grid_top",
      "grid_right",
      "grid_bottom",
      "box_left",
      "box_top",
      "box_right",
      "box_bottom",
      "error",
    ],
  ],
];
const inPixels = new Set([
  "width",
  "height",
  ...["peak_x", "peak_y", "centre_x", "centre_y"],
  ...["grid", "box"].flatMap((one) => ["left", "top", "right", "bottom"].map((side) => `${one}_${side}`)),
]);

function cell(name, row) {
  const value = table[name][row];
  if (asPercent.has(name)) return percent(value, 1);
  if (inPixels.has(name)) return `${Number(value.toFixed(1))}\u2009px`;
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "number" ? (name.endsWith("index") ? String(value) : plain(value)) : value;
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

  function mark(row, frame) {
    const share = (value, side) => `${(100 * value) / table[side][row]}%`;
    if (known(table.box_left[row])) {
      const [left, top, right, bottom] = ["left", "top", "right", "bottom"].map((side) => table[`box_${side}`][row]);
      frame.append(
        element("span", {
          class: "box mark",
          style: {
            left: share(left, "width"),
            top: share(top, "height"),
            width: share(right - left, "width"),
            height: share(bottom - top, "height"),
          },
        }),
      );
    }
    if (known(table.peak_x[row])) {
      frame.append(
        element("span", {
          class: "peak mark",
          style: { left: share(table.peak_x[row], "width"), top: share(table.peak_y[row], "height") },
        }),
      );
    }
  }

  function show(to) {
    at = Math.min(Math.max(0, to), rows.length - 1);
    const row = rows[at];
    title.textContent = `${targetOf(row)} ${sureOf(row)}`;
    place.textContent = `${whole(at + 1)} of ${whole(rows.length)}`;
    back.disabled = at === 0;
    on.disabled = at === rows.length - 1;
    heat.value = gallery.heat();
    const frame = overlaid(row, { longer: 480, alt: described(row) });
    mark(row, frame);
    stage.replaceChildren(
      frame,
      ...(data.steps[row] ? [element("p", { class: "below" }, `A clip: the sum over its ${data.steps[row]} steps.`)] : []),
    );
    facts.replaceChildren(
      ...groups.flatMap(([name, columns]) => {
        const there = columns.filter((column) => known(table[column][row]));
        const lines = there.flatMap((column) => [
          element("dt", {}, column),
          element("dd", { class: typeof table[column][row] === "string" ? "text" : "number" }, cell(column, row)),
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
