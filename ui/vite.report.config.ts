import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";
import { browsers } from "./vite.config.ts";

// One classic script and one style sheet, which stand in the page itself.
export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: "../src/hookmap/pages/built",
    emptyOutDir: false,
    ...browsers,
    modulePreload: false,
    cssCodeSplit: false,
    rolldownOptions: {
      input: "entries/report/main.ts",
      output: { format: "iife", entryFileNames: "report.js", assetFileNames: "report[extname]" },
    },
  },
});
