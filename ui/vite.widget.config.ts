import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { defineConfig } from "vite";

const BUILT = resolve(import.meta.dirname, "../src/hookmap/pages/built");
const read = (name: string) => readFileSync(`${BUILT}/app/assets/${name}`, "utf8");

// One ES module for anywidget, with the app, which is built before, inside.
export default defineConfig({
  define: { APP_SCRIPT: JSON.stringify(read("index.js")), APP_STYLE: JSON.stringify(read("index.css")) },
  build: {
    outDir: BUILT,
    emptyOutDir: false,
    target: "es2023",
    lib: { entry: resolve(import.meta.dirname, "entries/widget/index.ts"), formats: ["es"], fileName: () => "widget.js" },
  },
});
