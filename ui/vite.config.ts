import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

/** The oldest browsers that know light-dark() themselves: what stands in for it wouldn't follow a person's choice. */
export const browsers = { target: "es2023", cssTarget: ["chrome123", "firefox120", "safari17.5"] };

// Names without hashes: the files are committed, and the server sends their own entity tags.
export default defineConfig({
  root: "entries/app",
  base: "./",
  plugins: [svelte({ configFile: "../../svelte.config.js" })],
  build: {
    outDir: "../../../src/hookmap/pages/built/app",
    emptyOutDir: true,
    ...browsers,
    modulePreload: false,
    rolldownOptions: {
      output: {
        entryFileNames: "assets/[name].js",
        chunkFileNames: "assets/[name].js",
        assetFileNames: "assets/[name][extname]",
      },
    },
  },
  worker: { format: "es", rolldownOptions: { output: { entryFileNames: "assets/[name].js" } } },
  server: { proxy: { "/api": "http://127.0.0.1:8765" } },
  test: { root: ".", include: ["tests/**/*.test.ts"] },
});
