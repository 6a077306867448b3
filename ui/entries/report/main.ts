import { type Component, flushSync, mount } from "svelte";
import Filters from "../../views/run/Filters.svelte";
import Gallery from "../../views/run/Gallery.svelte";
import { RunView } from "../../views/run/run.svelte.ts";
import Viewer from "../../views/run/Viewer.svelte";
import { wear } from "../../views/theme.ts";
import "../../views/style.css";
import Blocks from "./Blocks.svelte";
import { read } from "./data.ts";
import "./page.css";
import Tools from "./Tools.svelte";

wear();
const { table, pictures, sections, look } = read();
const run = new RunView(table, pictures);

function into<Props extends Record<string, unknown>>(place: string, view: Component<Props>, props: Props): void {
  mount(view, { target: document.querySelector(place)!, props });
}

into(".tools", Tools, { run });
for (const { name, blocks } of sections) into(`#${name} .content`, Blocks, { run, blocks });
into("#gallery .aside", Filters, { run, look });
into("#gallery .content", Gallery, { run });
into("body", Viewer, { run });
flushSync();
document.documentElement.dataset.ready = "yes";
