/**
 * flake.nix, evaluated against a stand-in for nixpkgs (test/nix): there is no network here to build it with.
 */
import { execFileSync, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { makeWorld } from "./command/Nodepass.js"
import { folder } from "./command/Program.js"

const root = fileURLToPath(new URL("../..", import.meta.url))
const hasNix = spawnSync("nix", ["--version"]).status === 0
if (!hasNix) console.log("flake.nix is not evaluated: no nix on the PATH")

/** Runs a command of nix on a copy of the flake, with a store of its own, and answers with what it prints. */
const nix = (...args: ReadonlyArray<string>): string => {
  const folder = mkdtempSync(join(tmpdir(), "nodepass-flake-"))
  try {
    for (const name of ["flake.nix", "flake.lock", "package.json", "package-lock.json"]) {
      cpSync(join(root, name), join(folder, "flake", name))
    }
    const features = ["--extra-experimental-features", "nix-command flakes", "--offline"]
    const inputs = ["--override-input", "nixpkgs", `path:${join(root, "test/nix")}`, "--no-write-lock-file"]
    return execFileSync("nix", [...features, ...args, ...inputs, "--store", join(folder, "store")], {
      cwd: join(folder, "flake"),
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, HOME: folder }
    })
  } finally {
    // Nix makes what it stores read-only.
    spawnSync("chmod", ["-R", "u+w", folder])
    rmSync(folder, { recursive: true, force: true })
  }
}

const systems = ["aarch64-darwin", "aarch64-linux", "x86_64-darwin", "x86_64-linux"]

describe("flake.nix", () => {
  it("has the hashes of this package-lock.json (`node scripts/flake.js` writes them)", () => {
    const lock = createHash("sha256")
      .update(readFileSync(join(root, "package-lock.json")))
      .digest("hex")
    expect(readFileSync(join(root, "flake.nix"), "utf8")).toContain(`lock = "${lock}"`)
  })

  it("has all that the command needs in its package, a master with its database included", async () => {
    const text = readFileSync(join(root, "flake.nix"), "utf8")
    const modules = /for name in ([^;]+); do/.exec(text)?.[1]?.split(" ") ?? []
    const files = /cp -r (.*) \$out\/lib\/nodepass-effect$/m.exec(text)?.[1]?.split(" ") ?? []
    expect(files).toContain("dist")
    const world = makeWorld()
    try {
      const own = folder(world)
      for (const name of [...files, ...modules.map((name) => `node_modules/${name}`)]) {
        cpSync(join(root, name), join(own, name), { recursive: true })
      }
      const port = await world.freePort()
      const args = [`master://127.0.0.1:${port}?state=${join(own, "state")}`]
      const master = world.start(args, {}, join(own, "bin/nodepass.js"))
      await master.line(/API is ready/)
      expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(200)
      const relay = world.start(
        ["client://127.0.0.1:1/127.0.0.1:9?mode=2"],
        { NP_RELAY: "kernel" },
        join(own, "bin/nodepass.js")
      )
      if (process.platform === "linux") await relay.line(/relay: kernel/)
    } finally {
      world.close()
    }
  })

  it.skipIf(!hasNix)("evaluates whole, on this system", () => {
    expect(nix("flake", "check", "--no-build", "path:.")).toBe("")
  })

  it.skipIf(!hasNix)("has a package, an app, a shell and checks for every system", () => {
    const outputs: unknown = JSON.parse(nix("flake", "show", "--json", "path:."))
    for (const system of systems) {
      expect(outputs).toMatchObject({
        packages: { [system]: { default: { type: "derivation" }, "nodepass-effect": { type: "derivation" } } },
        apps: { [system]: { default: { type: "app" } } },
        devShells: { [system]: { default: { type: "derivation" } } },
        checks: { [system]: { package: { type: "derivation" }, command: { type: "derivation" } } }
      })
    }
  })

  it.skipIf(!hasNix)("runs the command of the package", () => {
    const program: unknown = JSON.parse(nix("eval", "--json", "path:.#apps.x86_64-linux.default.program"))
    expect(program).toMatch(/-nodepass-effect-[\d.]+\/bin\/nodepass$/)
  })
})
