/**
 * `dist/`: every module of `src/` with its types and maps, and the command in one file with its code cache.
 */
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { install } from "./install.js"
import { Failure, capture, isMain, root, run, tool } from "./tool.js"

const dist = join(root, "dist")

/** Native code, and the packages that load it: found at run time, and optional. */
const external = ["koffi", "@koromix/*", "libsql", "@parcel/watcher", "pg-native", "*.node"]

/** Builds `dist/` unless it is up to date. Throws a `Failure` with the compiler's output. */
export const build = async () => {
  const stamp = fingerprint()
  if (stamp === read(join(dist, ".stamp"))) return
  console.log("Building dist/ ...")
  // A folder of its own, one below the root as dist is: a failed build, or one beside this one, leaves dist whole.
  const next = join(root, `.dist-${process.pid}`)
  try {
    mkdirSync(next, { recursive: true })
    await compile(next)
    await bundle(next)
    await buildPage(join(next, "page"))
    writeFileSync(join(next, ".stamp"), stamp)
    if (existsSync(dist)) renameSync(dist, `${next}-old`)
    renameSync(next, dist)
    await cacheCode()
  } finally {
    rmSync(next, { recursive: true, force: true })
    rmSync(`${next}-old`, { recursive: true, force: true })
  }
}

/**
 * Types are not checked here: `npm run check` does.
 *
 * @param {string} folder
 */
const compile = async (folder) => {
  const { ok, output } = await capture([
    tool("typescript", "tsc"),
    "-p",
    "scripts/tsconfig.build.json",
    "--noCheck",
    "--outDir",
    folder
  ])
  if (!ok) throw new Failure(`The build failed:\n${output.trimEnd()}`)
}

/**
 * The command as one CommonJS script: V8 can cache the code of a script on every version of Node.
 *
 * @param {string} folder
 */
const bundle = (folder) =>
  esbuild({
    entryPoints: { nodepass: "src/node/process/main.ts" },
    outdir: folder,
    outExtension: { ".js": ".cjs" },
    platform: "node",
    target: "node20",
    format: "cjs",
    splitting: false,
    external,
    supported: { "dynamic-import": false },
    define: { "import.meta.url": "moduleUrl" },
    banner: { js: 'const moduleUrl = require("node:url").pathToFileURL(__filename).href;' }
  })

/** The cache is valid only for the present version of Node and the path of the file. */
const cacheCode = async () => {
  const { ok, output } = await capture(["scripts/cache.js"])
  if (!ok) throw new Failure(`The build failed:\n${output.trimEnd()}`)
}

/**
 * The files that a master gives to browsers.
 *
 * @param {string} folder
 */
const buildPage = (folder) =>
  esbuild({
    entryPoints: ["main.tsx", "docs.tsx", "page.css", "index.html", "docs.html", "icon.svg"].map(
      (name) => `src/page/${name}`
    ),
    outdir: folder,
    chunkNames: "shared-[hash]",
    platform: "browser",
    target: ["es2022", "chrome120", "firefox124", "safari17.4"],
    tsconfig: "src/page/tsconfig.json",
    loader: { ".html": "copy", ".svg": "copy" }
  })

/** @param {import("esbuild").BuildOptions} options */
const esbuild = async (options) => {
  const esbuild = await import("esbuild")
  try {
    await esbuild.build({
      absWorkingDir: root,
      bundle: true,
      splitting: true,
      minify: true,
      format: "esm",
      logLevel: "silent",
      ...options
    })
  } catch (error) {
    throw new Failure(`The build failed:\n${error instanceof Error ? error.message : String(error)}`)
  } finally {
    await esbuild.stop()
  }
}

/** A hash of everything that `dist/` is made from. */
const fingerprint = () => {
  const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
    .map((name) => join("src", name))
    .filter((name) => statSync(join(root, name)).isFile())
    .toSorted()
  const rest = ["package.json", "package-lock.json", "tsconfig.json", "scripts/tsconfig.build.json"].concat([
    "scripts/build.js",
    "scripts/cache.js",
    "bin/bundle.js"
  ])
  const hash = createHash("sha256")
  for (const name of [...sources, ...rest]) {
    hash
      .update(`${name}\0`)
      .update(readFileSync(join(root, name)))
      .update("\0")
  }
  return hash.digest("hex")
}

/** @param {string} file */
const read = (file) => {
  try {
    return readFileSync(file, "utf8")
  } catch {
    return undefined
  }
}

if (isMain(import.meta.url))
  await run(async () => {
    install()
    await build()
  })
