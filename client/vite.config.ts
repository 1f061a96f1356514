import { loadEnv } from "vite";
import { defineConfig } from "vitest/config";
import { deployedRegions } from "./src/deployment.ts";

/**
 * The page runs nothing that it did not bring along. It may talk to any origin: each region's functions have their own,
 * known only at run time.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self' http: https: ws: wss:",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

/** Where `npm run dev` finds the control API: `geo-events up`, or the mock. */
const CONTROL = "http://127.0.0.1:4280";

export default defineConfig(({ mode }) => {
  // A mistake in the settings ends the build; the page itself could only stay empty.
  deployedRegions(loadEnv(mode, process.cwd()), "https://page.example/");
  return {
    // Relative paths: the page may be served from any folder.
    base: "./",
    build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
    server: { host: "127.0.0.1", port: 4281, proxy: { "/control": CONTROL, "/regions.json": CONTROL } },
    plugins: [
      {
        name: "content-security-policy",
        // Only in the build: Vite's development server injects styles inline.
        apply: "build",
        transformIndexHtml: () => [
          {
            tag: "meta",
            attrs: { "http-equiv": "Content-Security-Policy", content: POLICY },
            injectTo: "head-prepend",
          },
        ],
      },
    ],
    // Generous: tests wait for conditions, and a busy machine is slow.
    test: { include: ["src/**/*.test.ts"], testTimeout: 60_000 },
  };
});
