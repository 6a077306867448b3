// All heatmaps: filters, order, pages, and one of them large.

const explained = Array.from({ length: data.count }, (_, row) => row).filter((row) => known(table.target[row]));
const hasLabels = explained.some((row) => known(table.label[row]));

/** What the gallery can be sorted by: a column, or the order of the data. */
const orders = [
  ["", "order of the data"],
  ["probability", "probability of the prediction"],
  ["target_probability", "probability of the target"],
  ["target_score", "score of the target"],
  ["half_area", "focus: area of half the heat"],
  ["entropy", "entropy"],
  ["border", "share in the border"],
  ["corner", "share in one corner"],
  ["in_box", "share in the box"],
  ["in_mask", "share in the mask"],
  ["iou", "overlap with the true box"],
].filter(([name]) => !name || explained.some((row) => known(table[name][row])));

const asPercent = new Set(data.columns.filter(([, , unit]) => unit === "share").map(([name]) => name));
const shown = (name, row) => (asPercent.has(name) ? percent(table[name][row], 1) : plain(table[name][row]));

const targetOf = (row) => (known(table.target_index[row]) ? short(table.target[row]) : table.target[row]);
const sureOf = (row) =>
  known(table.target_probability[row]) ? percent(table.target_probability[row]) : plain(table.target_score[row]);
const outcomeOf = (row) =>
  table.correct[row] === true ? "correct" : table.correct[row] === false ? "wrong" : "unknown";
/** How much evidence a map shows, in words, where that is none to speak of. */
const silence = { none: "none", faint: "next to none", even: "the same everywhere" };
const silentOf = (row) => table.evidence[row] in silence;

/** Rows that say again what another says: where label and prediction agree, both targets are one class. */
const twins = (() => {
  const seen = new Set();
  return new Set(
    explained.filter((row) => {
      if (!known(table.target_index[row])) return false;
      const key = ["id", "target_index", "target_score", "method", "layer"].map((name) => table[name][row]).join("\n");
      return seen.has(key) || !seen.add(key);
    }),
  );
})();

/** What stands below a heatmap's target: how the image is labelled, or what else tells it apart. */
function beneath(row) {
  const { label, label_index, prediction, target_index, where, id } = table;
  if (silentOf(row)) return "no evidence";
  const isLabel = known(target_index[row]) && target_index[row] === label_index[row];
  if (outcomeOf(row) === "wrong")
    return isLabel ? `predicted ${short(prediction[row])}` : `labelled ${short(label[row])}`;
  if (known(where[row])) return where[row];
  return known(label[row]) && !isLabel ? short(label[row]) : id[row].split("/").at(-1);
}

function described(row) {
  const parts = [`${table.id[row]}: heatmap for ${targetOf(row)}, ${sureOf(row)}`];
  if (known(table.where[row])) parts.push(table.where[row]);
  if (known(table.label[row])) parts.push(`labelled ${short(table.label[row])}`);
  if (outcomeOf(row) !== "unknown") parts.push(outcomeOf(row));
  if (data.caveats[row]) parts.push(data.caveats[row]);
  return parts.join(", ");
}

/** Show the small copy of a row's image. */
async function pictureInto(img, row) {
  const number = data.pictureOf[row];
  if (number >= 0) img.src = `data:image/jpeg;base64,${await piles.pictures.get(number)}`;
}

const share = (row, value, side) => `${(100 * value) / table[side][row]}%`;

/** A row's box on its picture: of what was detected, or of what the data set marks. */
function boxOf(row) {
  const [left, top, right, bottom] = ["left", "top", "right", "bottom"].map((side) => table[`box_${side}`][row]);
  const style = {
    left: share(row, left, "width"),
    top: share(row, top, "height"),
    width: share(row, right - left, "width"),
    height: share(row, bottom - top, "height"),
  };
  return element("span", { class: "box mark", style });
}

const peakOf = (row) =>
  element("span", {
    class: "peak mark",
    style: { left: share(row, table.peak_x[row], "width"), top: share(row, table.peak_y[row], "height") },
  });

/** A picture with its heatmap over it; both come when they are read. */
function overlaid(row, { longer = 160, alt = "" } = {}) {
  const [width, height] = [table.width[row] || 1, table.height[row] || 1];
  const img = element("img", { alt, draggable: "false" });
  const heat = element("canvas", { class: "heat", "aria-hidden": "true" });
  const frame = element("span", { class: "overlaid", style: { aspectRatio: `${width} / ${height}` } }, img, heat);
  frame.style.setProperty("--wide", Math.min(1, width / height));
  frame.style.setProperty("--aspect", width / height);
  if (data.caveats[row]) frame.append(element("span", { class: "caveat" }, data.caveats[row]));
  if (known(table.box_left[row])) frame.append(boxOf(row));
  const failed = (error) => frame.append(element("span", { class: "missing" }, error.message));
  return lazily(frame, () => {
    Promise.all([pictureInto(img, row), drawRow(heat, row, longer)]).then(() => (frame.dataset.drawn = row), failed);
  });
}

const gallery = (() => {
  const found = { rows: explained, scope: null };
  const section = document.getElementById("gallery");
  const grid = element("div", { class: "tiles", role: "list", "aria-label": "Heatmaps" });
  const tally = element("p", { class: "tally", role: "status" });
  const scope = element("button", { type: "button", class: "scope", hidden: true, onclick: () => narrow(null) });
  const pages = pager(render, { what: "heatmaps" });

  const choices = (name, values, label = (value) => value) =>
    element(
      "select",
      { name, id: `by-${name}`, onchange: update },
      element("option", { value: "" }, "all"),
      ...values.map((value) => element("option", { value }, label(value))),
    );
  const distinct = (name) => [...new Set(explained.map((row) => table[name][row]).filter(known))];
  const classes = (name) => {
    const counts = new Map();
    for (const row of explained) counts.set(table[name][row], (counts.get(table[name][row]) ?? 0) + 1);
    const names = distinct(name).sort((one, other) => one.localeCompare(other));
    return choices(name, names, (value) => `${short(value).slice(0, 44)} (${counts.get(value)})`);
  };

  const fields = {};
  const field = (name, text, control) => {
    fields[name] = control;
    return element("label", { class: "field" }, element("span", {}, text), control);
  };
  const search = element("input", {
    type: "search",
    id: "search",
    placeholder: "name, class, method",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => later(update),
  });
  const form = element(
    "form",
    {
      class: "filters",
      role: "search",
      "aria-label": "Filter the gallery",
      onsubmit: (event) => event.preventDefault(),
    },
    field("text", "Search", search),
    hasLabels ? field("label", "Labelled", classes("label")) : null,
    distinct("prediction").length > 1 ? field("prediction", "Predicted", classes("prediction")) : null,
    explained.some((row) => outcomeOf(row) !== "unknown")
      ? field("outcome", "Outcome", choices("outcome", ["correct", "wrong", "unknown"]))
      : null,
    ...["asked", "method", "layer"].map((name) =>
      distinct(name).length > 1
        ? field(
            name,
            { asked: "Target", method: "Method", layer: "Layer" }[name],
            choices(name, distinct(name), name === "method" ? (value) => data.titles[value] ?? value : undefined),
          )
        : null,
    ),
    explained.some(silentOf)
      ? field("evidence", "Evidence", choices("evidence", distinct("evidence"), (value) => silence[value] ?? value))
      : null,
    field(
      "sort",
      "Sort by",
      element(
        "select",
        { name: "sort", id: "by-sort", onchange: update },
        ...orders.map(([value, text]) => element("option", { value }, text)),
      ),
    ),
    field(
      "direction",
      "Order",
      element(
        "select",
        { name: "direction", id: "by-direction", onchange: update },
        element("option", { value: "up" }, "lowest first"),
        element("option", { value: "down" }, "highest first"),
      ),
    ),
    field(
      "heat",
      "Heat",
      element("input", {
        type: "range",
        min: "0",
        max: "100",
        value: "100",
        oninput: (event) => opacity(event.target.value),
      }),
    ),
    legend(),
    element("button", { type: "button", onclick: () => clear() }, "Clear all"),
  );
  let timer = 0;
  const later = (action) => {
    clearTimeout(timer);
    timer = setTimeout(action, 120);
  };
  const opacity = (value) => {
    fields.heat.value = value;
    document.documentElement.style.setProperty("--heat", value / 100);
  };

  // Of each row what is searched, made at the first search.
  let texts = null;
  const textOf = (row) =>
    ["id", "label", "prediction", "target", "where", "method", "layer", "truth"]
      .map((name) => table[name][row] ?? "")
      .join("\n")
      .toLowerCase();

  function matching() {
    const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length && !texts) texts = new Map(explained.map((row) => [row, textOf(row)]));
    const wanted = ["label", "prediction", "asked", "method", "layer", "evidence"]
      .map((name) => [table[name], fields[name]?.value])
      .filter(([, value]) => value);
    const outcome = fields.outcome?.value;
    let rows = (found.scope?.rows ?? explained).filter(
      (row) =>
        (fields.asked?.value || found.scope || !twins.has(row)) &&
        wanted.every(([values, value]) => values[row] === value) &&
        (!outcome || outcomeOf(row) === outcome) &&
        words.every((word) => texts.get(row).includes(word)),
    );
    const values = table[fields.sort.value];
    const sign = fields.direction.value === "down" ? -1 : 1;
    if (values)
      rows = rows.sort(
        (a, b) =>
          known(values[b]) - known(values[a]) || (known(values[a]) ? sign * (values[a] - values[b]) : 0) || a - b,
      );
    else if (sign < 0) rows.reverse();
    return rows;
  }

  function update() {
    found.rows = matching();
    const all = explained.length;
    const alone = fields.asked?.value || found.scope ? 0 : twins.size;
    tally.textContent =
      (found.rows.length === all - alone ? "" : `${whole(found.rows.length)} of `) +
      several(all - alone, "heatmap") +
      (alone ? `; ${whole(alone)} more say the same, where label and prediction agree` : "");
    pages.reset(found.rows.length);
  }

  function narrow(wanted) {
    found.scope = wanted;
    scope.hidden = !wanted;
    if (wanted) {
      scope.textContent = `${wanted.name} \u00d7`;
      scope.setAttribute("aria-label", `Showing ${wanted.name}; show all again`);
    }
    update();
  }

  function clear(wanted = null) {
    const heat = fields.heat.value;
    form.reset();
    opacity(heat);
    narrow(wanted);
  }

  /** Come here with some rows that have a name. */
  function show(wanted) {
    clear(wanted);
    section.scrollIntoView();
    grid.querySelector("button")?.focus({ preventScroll: true });
  }

  function tile(row, at) {
    const sort = fields.sort.value;
    const value = sort && !sort.endsWith("probability") && sort !== "target_score" ? shown(sort, row) : "";
    const button = element(
      "button",
      {
        type: "button",
        class: "tile",
        tabindex: at ? "-1" : "0",
        "aria-label": described(row),
        title: table.id[row],
        onclick: () => viewer.open(found.rows, found.rows.indexOf(row)),
      },
      element("span", { class: "well" }, overlaid(row)),
      element(
        "span",
        { class: "line" },
        element("span", { class: "name" }, targetOf(row)),
        element("span", { class: "number" }, sureOf(row)),
      ),
      element(
        "span",
        { class: `line below ${silentOf(row) ? "" : outcomeOf(row)}` },
        element("span", { class: "name" }, beneath(row)),
        element("span", { class: "number" }, value),
      ),
    );
    return element("div", { role: "listitem" }, button);
  }

  function render(from, to, focus) {
    grid.replaceChildren(...found.rows.slice(from, to).map(tile));
    if (to === 0) grid.append(element("p", { class: "nothing" }, "No heatmap fits these filters."));
    if (focus !== undefined) grid.querySelectorAll("button")[focus < 0 ? to - from - 1 : focus]?.focus();
  }

  grid.addEventListener("keydown", (event) => {
    const buttons = [...grid.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    const tops = buttons.map((button) => button.offsetTop);
    const across = Math.max(1, tops.filter((top) => top === tops[0]).length);
    const by = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -across,
      ArrowDown: across,
      Home: -at,
      End: buttons.length - 1 - at,
    }[event.key];
    if (by === undefined || at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (buttons[at + by]) buttons[at + by].focus();
    else if (at + by >= buttons.length && pages.page + 1 < pages.pages()) pages.go(pages.page + 1, 0);
    else if (at + by < 0 && pages.page > 0) pages.go(pages.page - 1, -1);
  });
  grid.addEventListener("focusin", (event) => {
    for (const button of grid.querySelectorAll("button")) button.tabIndex = button === event.target ? 0 : -1;
  });

  section.querySelector(".aside").append(form);
  section
    .querySelector(".content")
    .append(element("div", { class: "bar" }, tally, scope, pages.bar()), grid, pages.bar());
  update();
  return { search, show, opacity, step: (by) => pages.go(pages.page + by, 0), heat: () => Number(fields.heat.value) };
})();
