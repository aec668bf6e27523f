/**
 * A program in TypeScript as one file of JavaScript: it starts in a third of the time that tsx takes.
 */
import * as Esbuild from "esbuild"

/** Writes the program to `file`, which must be below the root: packages with native code are not in it. */
export const bundle = async (program: string, file: string): Promise<void> => {
  await Esbuild.build({
    entryPoints: [program],
    outfile: file,
    bundle: true,
    platform: "node",
    format: "esm",
    external: ["koffi", "@koromix/*", "libsql", "pg-native"],
    // CommonJS packages in it load Node's modules.
    banner: { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' }
  })
}
