/**
 * What package.json promises to those who install the package.
 */
import { execFileSync } from "node:child_process"
import { accessSync, constants, existsSync, readFileSync, readdirSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Schema from "effect/Schema"
import { describe, expect, it } from "vitest"

const root = fileURLToPath(new URL("../..", import.meta.url))
const read = (name: string) => readFileSync(join(root, name), "utf8")
const require = createRequire(import.meta.url)

const Ranges = Schema.optionalWith(Schema.Record({ key: Schema.String, value: Schema.String }), { default: () => ({}) })
const Entry = Schema.Struct({
  version: Schema.optional(Schema.String),
  resolved: Schema.optional(Schema.String),
  integrity: Schema.optional(Schema.String),
  optional: Schema.optional(Schema.Boolean),
  dependencies: Ranges,
  devDependencies: Ranges,
  optionalDependencies: Ranges
})
const Manifest = Schema.Struct({
  ...Entry.fields,
  name: Schema.String,
  engines: Schema.Struct({ node: Schema.String }),
  bin: Schema.Struct({ nodepass: Schema.String }),
  files: Schema.Array(Schema.String)
})
const Lock = Schema.Struct({ packages: Schema.Record({ key: Schema.String, value: Entry }) })

const manifest = Schema.decodeSync(Schema.parseJson(Manifest))(read("package.json"))
const { packages } = Schema.decodeSync(Schema.parseJson(Lock))(read("package-lock.json"))

const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
  .map((name) => name.replaceAll("\\", "/"))
  // What browsers load is bundled at build time.
  .filter((name) => name.endsWith(".ts") && !name.startsWith("page/"))

/** In dist/nodepass.cjs, and nowhere else: its peers would be 44 MB for a host to install. */
const bundled = ["@effect/opentelemetry"]

/** The packages that a source names in an import, an export or a late import. */
const imported = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/(?:^(?:import|export)\b[^"\n]*\bfrom |^\} from |^import |\bimport\()"([^"\n]+)"/gm)]
    .flatMap(([, name]) => name ?? [])
    .filter((name) => !name.startsWith(".") && !name.startsWith("node:"))
    .map((name) => name.split("/", name.startsWith("@") ? 2 : 1).join("/"))

describe("package.json", () => {
  it("requires Node 20 or newer", () => {
    expect(manifest.engines.node).toBe(">=20")
  })

  it("has a command that is there and may be run", () => {
    const command = join(root, manifest.bin.nodepass)
    expect(readFileSync(command, "utf8")).toMatch(/^#!\/usr\/bin\/env node\n/)
    accessSync(command, constants.X_OK)
  })

  it("ships what the command and the exports need, and its licence beside it", () => {
    expect(manifest.files).toEqual(expect.arrayContaining(["bin", "dist", "src"]))
    expect(existsSync(join(root, "LICENSE"))).toBe(true)
  })

  it.each(["", "/node", "/master", "/testing"])("exports nodepass-effect%s with its types", (tier) => {
    const file = require.resolve(`${manifest.name}${tier}`)
    expect(file).toBe(join(root, "dist", tier, "index.js"))
    expect(existsSync(file.replace(/\.js$/, ".d.ts"))).toBe(true)
  })

  it.each(["nodepass", "core/Address", "node/process/main", "page/main"])("keeps %s internal", (name) => {
    expect(() => require.resolve(`${manifest.name}/${name}`)).toThrow("is not defined by")
  })

  it("names every package that src imports, and src imports every package it names", () => {
    const used = new Set(sources.flatMap((name) => imported(read(`src/${name}`))))
    used.delete(manifest.name)
    const named = Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies })
    expect([...used].toSorted()).toEqual([...named, ...bundled].toSorted())
  })

  it("does not depend on what is bundled into the command, which no export loads", () => {
    const loading = sources.filter((name) => imported(read(`src/${name}`)).some((name) => bundled.includes(name)))
    expect(loading).toEqual(["node/process/OpenTelemetry.ts"])
    expect(Object.keys(manifest.devDependencies)).toEqual(expect.arrayContaining(bundled))
    const exports = sources.filter((name) => name.endsWith("index.ts")).map((name) => read(`src/${name}`))
    expect(exports.join("")).not.toContain("OpenTelemetry")
  })
})

describe("package-lock.json", () => {
  it("is the lock of this package.json", () => {
    const { dependencies, devDependencies, optionalDependencies } = manifest
    expect(packages[""]).toMatchObject({ dependencies, devDependencies, optionalDependencies })
  })

  it("has the hash of every package, and no registry address", () => {
    const entries = Object.entries(packages).filter(([path]) => path !== "")
    expect(entries.filter(([, entry]) => entry.resolved !== undefined)).toEqual([])
    expect(entries.filter(([, entry]) => entry.integrity === undefined && entry.optional !== true)).toEqual([])
  })

  it("has nothing of the OpenTelemetry SDK: `node scripts/lock.js` leaves it out", () => {
    expect(Object.keys(packages).filter((path) => path.includes("@opentelemetry/"))).toEqual([])
  })

  it("names the programs of every system, not only of the one it was written on: npm ci refuses it otherwise", () => {
    const missing = Object.entries(packages).flatMap(([path, entry]) =>
      Object.keys(entry.optionalDependencies).filter((name) => {
        const at = path === "" ? "" : dirname(`${path}/x`)
        return packages[`node_modules/${name}`] === undefined && packages[`${at}/node_modules/${name}`] === undefined
      })
    )
    expect(missing).toEqual([])
  })
})

it.skipIf(!existsSync(join(root, ".git")))("no file names a package registry: it is the user's to choose", () => {
  const files = execFileSync("git", ["ls-files", "-z"], { cwd: root, encoding: "utf8" }).split("\0").filter(Boolean)
  const address = /\b(?:registry|npm)\.[a-z]+\.(?:org|com|io|dev)\b/
  const naming = files.filter((name) => existsSync(join(root, name)) && address.test(read(name)))
  expect(naming).toEqual([])
})
