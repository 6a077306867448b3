// What reveals a model: sections of blocks, each drawn by its kind.

const frameOf = (coded) =>
  lazily(element("canvas", { class: "frame", "aria-hidden": "true" }), function () {
    drawFrame(this, coded);
  });

const framed = ({ map, title, note }) =>
  element(
    "figure",
    {},
    frameOf(map),
    element("figcaption", {}, title, note ? element("div", { class: "note" }, note) : null),
  );

/** The rows that a group or a class has in the gallery. */
const rowsOf = (group) => group.rows ?? explained.filter((row) => table[group.column][row] === group.value);
const toGallery = (group, text) =>
  element(
    "button",
    {
      type: "button",
      class: "plain",
      title: group.value,
      onclick: () => gallery.show({ name: group.name, rows: rowsOf(group) }),
    },
    text,
  );

/** A picture of a row that opens large, among others. */
const overlayButton = (row, rows, caption) =>
  element(
    "button",
    {
      type: "button",
      class: "tile",
      "aria-label": described(row),
      title: table.id[row],
      onclick: () => viewer.open(rows, rows.indexOf(row)),
    },
    element("span", { class: "well" }, overlaid(row)),
    caption ? element("span", { class: "line below" }, element("span", { class: "name" }, caption)) : null,
  );

/** A part of a row's picture: what a cell of the grid sees around a place of it, moved inside the picture. */
function patchOf([row, y, x], field, rows) {
  const sides = [
    [x, field[1], "left", "right", "width"],
    [y, field[0], "top", "bottom", "height"],
  ].map(([at, share, from, to, side]) => {
    const low = table[`grid_${from}`][row];
    const span = table[`grid_${to}`][row] - low;
    const size = Math.min(1, (share * span) / table[side][row]);
    const start = (low + at * span) / table[side][row] - size / 2;
    return [Math.min(Math.max(start, 0), 1 - size), size];
  });
  const [[left, wide], [top, high]] = sides;
  const img = element("img", {
    alt: "",
    draggable: "false",
    style: {
      width: `${100 / wide}%`,
      height: `${100 / high}%`,
      left: `${(-100 * left) / wide}%`,
      top: `${(-100 * top) / high}%`,
    },
  });
  return element(
    "button",
    {
      type: "button",
      class: "tile",
      "aria-label": `Part of ${described(row)}`,
      title: table.id[row],
      onclick: () => viewer.open(rows, rows.indexOf(row)),
    },
    lazily(element("span", { class: "patch" }, img), () => pictureInto(img, row)),
  );
}

/** An input that narrows a list by words in its texts. */
function finder(label, items, textOf, show) {
  const texts = items.map((item) => textOf(item).toLowerCase());
  const found = () => {
    const words = input.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    show(items.filter((_, i) => words.every((word) => texts[i].includes(word))));
  };
  const input = element("input", {
    type: "search",
    placeholder: label,
    "aria-label": label,
    autocomplete: "off",
    spellcheck: "false",
    oninput: found,
  });
  return input;
}

const draw = {
  text: ({ text }) => element("p", { class: "note" }, text),

  frames: ({ items }) => element("div", { class: "frames" }, ...items.map(framed)),

  table({ columns, rows, column }) {
    const cells = {
      text: (value) => value ?? "",
      flag: (value) => element("span", { class: "flag" }, value),
      number: whole,
      decimal: (value) => (known(value) ? value.toFixed(2).replace(/^-(0\.00)$/, "$1") : "\u2013"),
      percent: (value) => percent(value, 1),
      frame: frameOf,
      class: (value) => (column ? toGallery({ column, value, name: short(value) }, short(value)) : short(value)),
    };
    const numeric = (kind) => ["number", "decimal", "percent"].includes(kind);
    let list = rows;
    let order = () => 0;
    const body = element("tbody");
    const pages = pager(
      (from, to) => {
        const line = (row) =>
          element(
            "tr",
            {},
            ...row.map((value, i) =>
              element("td", { class: numeric(columns[i].kind) ? "number" : null }, cells[columns[i].kind](value)),
            ),
          );
        body.replaceChildren(...list.slice(from, to).map(line));
      },
      { per: 20, what: "rows" },
    );
    const sort = (i, head) => {
      // Numbers from above, names from A; the same head again turns it round.
      const was = head.getAttribute("aria-sort");
      const ascending = was ? was === "descending" : !numeric(columns[i].kind);
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const sign = ascending ? 1 : -1;
      order = ({ [i]: one }, { [i]: other }) =>
        known(other) - known(one) || (known(one) ? sign * (one < other ? -1 : one > other ? 1 : 0) : 0);
      list = [...list].sort(order);
      pages.go(0);
    };
    const heads = columns.map(({ kind, title }, i) => {
      const head = element("th", { scope: "col", class: numeric(kind) ? "number" : null });
      head.append(
        kind === "frame" || !title || rows.length < 3
          ? title
          : element("button", { type: "button", onclick: () => sort(i, head) }, title),
      );
      return head;
    });
    const narrow = (some) => {
      list = some.sort(order);
      pages.reset(list.length);
    };
    const words = (row) =>
      row.filter((value, i) => typeof value === "string" && columns[i].kind !== "frame").join("\n");
    const search = rows.length > 20 ? finder(`Find among ${whole(rows.length)}`, rows, words, narrow) : null;
    const bar = search ? element("div", { class: "bar" }, search, pages.bar()) : null;
    pages.reset(rows.length);
    return element(
      "div",
      {},
      bar,
      element(
        "div",
        { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" },
        element("table", {}, element("thead", {}, element("tr", {}, ...heads)), body),
      ),
    );
  },

  groups({ title, items, strip, search }) {
    let list = items;
    const body = element("div", { class: "rows" });
    const article = (item) => {
      const rows = item.patches ? item.patches.map(([row]) => row) : rowsOf(item);
      const some = item.patches ? [] : rows.slice(0, strip);
      return element(
        "article",
        {},
        element(
          "div",
          {},
          item.flag ? element("p", { class: "flag" }, item.flag) : null,
          element("h3", {}, item.title),
          ...(item.notes ?? []).map((note) => element("p", { class: "note" }, note)),
          !item.patches && rows.length > some.length
            ? toGallery(item, `All ${whole(rows.length)} in the gallery`)
            : null,
        ),
        element(
          "div",
          { class: item.patches ? "strip patches" : strip > 2 ? "strip" : "strip few" },
          ...(item.patches ?? []).map((patch) => patchOf(patch, item.field, rows)),
          ...(item.frames ?? []).map(framed),
          ...some.map((row) => overlayButton(row, rows, item.captions?.[rows.indexOf(row)])),
        ),
      );
    };
    const pages = pager((from, to) => body.replaceChildren(...list.slice(from, to).map(article)), {
      per: 10,
      what: title || "groups",
    });
    const narrow = (some) => {
      list = some;
      pages.reset(list.length);
    };
    const input = search
      ? finder(search, items, (item) => [item.title, ...(item.notes ?? [])].join("\n"), narrow)
      : null;
    const bar = element("div", { class: "bar" }, input, pages.bar());
    pages.reset(items.length);
    bar.hidden = !input && pages.pages() === 1;
    return element("div", {}, title ? element("h3", {}, title) : null, bar, body);
  },
};

for (const { name, blocks } of data.sections) {
  document.querySelector(`#${name} .content`).append(...blocks.map((block) => draw[block.kind](block)));
}
