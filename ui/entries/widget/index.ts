// The widget of a notebook: the app in a frame of its own, so that neither's styles and keys reach the other, and a port
// between it and the kernel.

import type { Heard, Said } from "../../core/notebook-source.ts";

/** What anywidget gives: the kernel's side of the widget. */
interface Model {
  get(name: "state"): Record<string, unknown>;
  send(content: unknown, callbacks?: unknown, buffers?: ArrayBuffer[]): void;
  on(event: "msg:custom", heard: (content: Heard["content"], buffers: DataView[]) => void): void;
  off(event: "msg:custom", heard: (content: Heard["content"], buffers: DataView[]) => void): void;
}

/** The app's own files, put in by the build. */
declare const APP_SCRIPT: string;
declare const APP_STYLE: string;

const HEIGHT = "min(760px, 86vh)";

function page(): string {
  const script = APP_SCRIPT.replaceAll("</script", "<\\/script");
  return (
    `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="hookmap-source" content="notebook">` +
    `<meta name="viewport" content="width=device-width, initial-scale=1"><style>${APP_STYLE}</style></head>` +
    `<body><div id="app"></div><script type="module">${script}</script></body></html>`
  );
}

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const frame = document.createElement("iframe");
  frame.title = "hookmap";
  frame.allow = "camera; clipboard-write";
  Object.assign(frame.style, { width: "100%", height: HEIGHT, border: "0", display: "block" });
  frame.srcdoc = page();
  const { port1, port2 } = new MessageChannel();
  const heard = (content: Heard["content"], buffers: DataView[]) =>
    port1.postMessage({
      content,
      buffers: buffers.map(({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength).slice()),
    });
  port1.onmessage = ({ data }: MessageEvent<Said>) => model.send(data.content, undefined, data.buffers);
  model.on("msg:custom", heard);
  const ready = ({ source, data }: MessageEvent) => {
    if (source !== frame.contentWindow || data !== "hookmap") return;
    window.removeEventListener("message", ready);
    frame.contentWindow!.postMessage({ state: model.get("state") }, "*", [port2]);
  };
  window.addEventListener("message", ready);
  el.append(frame);
  return () => {
    window.removeEventListener("message", ready);
    model.off("msg:custom", heard);
    port1.close();
    frame.remove();
  };
}

export default { render };
