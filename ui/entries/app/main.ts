import { mount } from "svelte";
import { FileSource, type SavedView } from "../../core/file-source.ts";
import { NotebookSource } from "../../core/notebook-source.ts";
import { remembering } from "../../core/remembering.ts";
import { decoder, ServerSource } from "../../core/server-source.ts";
import type { Source } from "../../core/source.ts";
import { decode, START, type State } from "../../core/state.ts";
import { type Language, languageOf, speak } from "../../core/strings.ts";
import App from "../../views/App.svelte";
import { Session } from "../../views/session.svelte.ts";
import "../../views/style.css";
import { remembered, wear } from "../../views/theme.ts";

const LANGUAGE = "hookmap-language";

interface Beginning {
  source: Source;
  state?: Partial<State>;
}

/** Where answers come from: the page itself, if a view was saved in it; a notebook around it; or the server. */
async function beginning(): Promise<Beginning> {
  const view = document.getElementById("view");
  if (view) {
    const saved = JSON.parse(view.textContent!) as SavedView;
    return { source: new FileSource(saved), state: saved.state };
  }
  if (document.querySelector('meta[name="hookmap-source"][content="notebook"]')) {
    return new Promise((resolve) => {
      const begin = ({ data, ports }: MessageEvent<{ state: Partial<State> }>) => {
        if (!ports.length) return;
        window.removeEventListener("message", begin);
        resolve({ source: new NotebookSource(ports[0]), state: data.state });
      };
      window.addEventListener("message", begin);
      window.parent.postMessage("hookmap", "*");
    });
  }
  const worker = new Worker(new URL("../../core/decoding.worker.ts", import.meta.url), { type: "module" });
  return { source: new ServerSource("api", decoder(worker)) };
}

/** What lets others than this machine in has done its work, and isn't to be copied with a link. */
function forgetToken(): void {
  const address = new URL(location.href);
  if (!address.searchParams.has("token")) return;
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}

if (location.protocol.startsWith("http")) forgetToken();
wear();
const language = languageOf(remembered(LANGUAGE) ?? navigator.language);
speak(language);
document.documentElement.lang = language;

const { source, state } = await beginning();
const session = new Session(remembering(source));
const onlanguage = (next: Language) => {
  remembered(LANGUAGE, next);
  location.reload();
};
mount(App, { target: document.getElementById("app")!, props: { session, language, onlanguage } });
const first = location.hash ? decode(location.hash) : { ...structuredClone(START), ...state };
session.start(first).catch((error) => session.tell(error));
