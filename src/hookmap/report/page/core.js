"use strict";
// What the page holds, and small helpers. Texts come from strangers' file names: they become text nodes and attributes,
// never markup.

const data = JSON.parse(document.getElementById("data").textContent);

function bytes(base64) {
  const text = atob(base64);
  const found = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
  return found;
}

function column(packed) {
  if (Array.isArray(packed)) return packed;
  if (packed.real !== undefined) return new Float32Array(bytes(packed.real).buffer);
  return packed.codes.map((code) => (code < 0 ? null : packed.words[code]));
}

/** The run's table by columns; a number that isn't there is null or NaN. */
const table = Object.fromEntries(Object.entries(data.table).map(([name, packed]) => [name, column(packed)]));
const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

/** Byte strings in chunks, which lie in the page or in scripts beside it. */
class Pile {
  static all = {};
  static most = 128; // chunks kept at a time

  constructor(name, { perChunk, files, folder }) {
    Object.assign(this, { name, perChunk, files, folder, chunks: new Map(), waiting: new Map(), arrive: new Map() });
    Pile.all[name] = this;
  }

  async get(number) {
    const chunk = Math.floor(number / this.perChunk);
    const items = this.chunks.get(chunk) ?? (await this.load(chunk));
    this.chunks.delete(chunk); // the last used is the last to go
    this.chunks.set(chunk, items);
    if (this.files && this.chunks.size > Pile.most) this.chunks.delete(this.chunks.keys().next().value);
    return items[number - chunk * this.perChunk];
  }

  load(chunk) {
    if (!this.waiting.has(chunk)) {
      this.waiting.set(chunk, this.files ? this.script(chunk) : Promise.resolve(this.block(chunk).split(",")));
    }
    return this.waiting.get(chunk).finally(() => this.waiting.delete(chunk));
  }

  block(chunk) {
    return document.querySelector(`script[data-pile="${this.name}"][data-chunk="${chunk}"]`).textContent;
  }

  script(chunk) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      this.arrive.set(chunk, resolve);
      script.onload = () => script.remove();
      script.onerror = () => reject(new Error(`${this.folder}/${this.files[chunk]} isn't beside this page`));
      script.src = `${encodeURIComponent(this.folder)}/${this.files[chunk]}`;
      document.head.append(script);
    });
  }
}

window.hookmapChunk = (pile, chunk, items) => Pile.all[pile].arrive.get(chunk)(items.split(","));
const piles = Object.fromEntries(Object.entries(data.piles).map(([name, about]) => [name, new Pile(name, about)]));

/** An element with attributes, listeners (onclick), properties of its style and children. */
function element(kind, attributes = {}, ...children) {
  const found = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") Object.assign(found.style, value);
    else if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else if (name in found && typeof value !== "string") found[name] = value;
    else found.setAttribute(name, value === true ? "" : value);
  }
  found.append(...children.filter((child) => child !== null && child !== undefined));
  return found;
}

const percent = (value, digits = 0) => (known(value) ? `${(100 * value).toFixed(digits)}%` : "\u2013");
const whole = (value) => (known(value) ? Math.round(value).toLocaleString("en") : "\u2013");
const plain = (value) => (known(value) ? String(Number(value.toPrecision(4))) : "\u2013");
const several = (number, one, many = `${one}s`) => `${whole(number)} ${number === 1 ? one : many}`;
/** A class without its synonyms. */
const short = (name) => (known(name) ? name.split(",")[0] : "\u2013");

/** A list shown so many at a time, with as many bars of buttons as are wanted. */
function pager(show, { per = 60, what = "page" } = {}) {
  const bars = [];
  const self = { page: 0, per, total: 0, pages: () => Math.max(1, Math.ceil(self.total / per)) };
  self.go = (to, focus) => {
    self.page = Math.min(Math.max(0, to), self.pages() - 1);
    for (const { bar, back, on, where } of bars) {
      where.textContent = `${self.page + 1} of ${self.pages()}`;
      back.disabled = self.page === 0;
      on.disabled = self.page === self.pages() - 1;
      bar.hidden = self.pages() === 1;
    }
    show(self.page * per, Math.min(self.total, (self.page + 1) * per), focus);
  };
  self.reset = (total) => {
    self.total = total;
    self.go(0);
  };
  self.bar = () => {
    const step = (by, text) => element("button", { type: "button", onclick: () => self.go(self.page + by) }, text);
    const [back, on] = [step(-1, "Previous"), step(1, "Next")];
    const where = element("span", { class: "where", "aria-live": "polite" });
    const bar = element("nav", { class: "pager", "aria-label": `Pages of ${what}` }, back, where, on);
    bars.push({ bar, back, on, where });
    return bar;
  };
  return self;
}

const undrawn = new Set();
const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) drawNow(target);
  },
  { rootMargin: "400px" },
);

function drawNow(node) {
  observer.unobserve(node);
  if (undrawn.delete(node)) node.draw();
}

/** Draw an element when it comes near what is seen, or is printed. */
function lazily(node, draw) {
  node.draw = draw;
  undrawn.add(node);
  observer.observe(node);
  return node;
}

/** Draw all that stands on the page, and forget what was taken from it. */
function drawAll() {
  for (const node of undrawn) {
    if (node.isConnected) drawNow(node);
    else undrawn.delete(node);
  }
}
window.addEventListener("beforeprint", drawAll);

/** Close a dialog by a click beside it. */
function closedOutside(dialog) {
  dialog.addEventListener("click", ({ target, clientX, clientY }) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    if (target === dialog && (clientX < left || clientX > right || clientY < top || clientY > bottom)) dialog.close();
  });
}
