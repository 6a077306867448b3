import { mount } from "svelte";
import { remembering } from "../../core/remembering.ts";
import { decoder, ServerSource } from "../../core/server-source.ts";
import { decode } from "../../core/state.ts";
import { type Language, languageOf, speak } from "../../core/strings.ts";
import App from "../../views/App.svelte";
import { Session } from "../../views/session.svelte.ts";
import "../../views/style.css";
import { remembered, wear } from "../../views/theme.ts";

const LANGUAGE = "hookmap-language";

wear();
const language = languageOf(remembered(LANGUAGE) ?? navigator.language);
speak(language);
document.documentElement.lang = language;

const worker = new Worker(new URL("../../core/decoding.worker.ts", import.meta.url), { type: "module" });
const session = new Session(remembering(new ServerSource("api", decoder(worker))));
const onlanguage = (next: Language) => {
  remembered(LANGUAGE, next);
  location.reload();
};
mount(App, { target: document.getElementById("app")!, props: { session, language, onlanguage } });
session.start(decode(location.hash)).catch((error) => session.tell(error));
