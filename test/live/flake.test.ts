/**
 * flake.nix: evaluated against a stand-in for nixpkgs (test/nix), and the command run from what it lays out.
 */
import { execFileSync, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { laidOut } from "../../scripts/flake.js"
import { echoing, makeWorld, type Nodepass, readAll, tunnelKey } from "./command/Nodepass.js"
import { folder } from "./command/Program.js"

const root = fileURLToPath(new URL("../..", import.meta.url))
const hasNix = spawnSync("nix", ["--version"]).status === 0
if (!hasNix) console.log("flake.nix is not evaluated: no nix on the PATH")

/** Runs a command of nix on a copy of the flake, with a store of its own, and returns its output. */
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

/** Runs the package's `installPhase` where node_modules has the packages that the flake lays out, and no others. */
const installPackage = (work: string): string => {
  const { arch, platform } = process
  for (const name of ["bin", "dist", "package.json", "LICENSE"]) symlinkSync(join(root, name), join(work, name))
  // Copies: a link would lead the script to the project's own node_modules.
  for (const name of ["scripts", "package-lock.json"]) cpSync(join(root, name), join(work, name), { recursive: true })
  for (const path of laidOut(root, platform, arch)) {
    const names = readdirSync(join(root, path))
    mkdirSync(dirname(join(work, path)), { recursive: true })
    if (!names.includes("node_modules")) symlinkSync(join(root, path), join(work, path))
    else {
      // The packages within have paths of their own.
      mkdirSync(join(work, path), { recursive: true })
      for (const name of names) {
        if (name !== "node_modules") symlinkSync(join(root, path, name), join(work, path, name))
      }
    }
  }
  const phases = readFileSync(join(root, "flake.nix"), "utf8").split("installPhase = ''")
  const [phase = ""] = phases.at(-1)?.split("'';") ?? []
  const script = phase.replaceAll(/\$\{systems\.\$\{system\}\.(os|cpu)\}|\$\{node pkgs\}/g, (_, field) =>
    field === "os" ? platform : field === "cpu" ? arch : "node"
  )
  const out = join(work, "out")
  execFileSync("bash", ["-euc", `makeWrapper() { :; }; cp() { command cp -L "$@"; }; ${script}`], {
    cwd: work,
    env: { ...process.env, out }
  })
  return out
}

const systems = ["aarch64-darwin", "aarch64-linux", "x86_64-darwin", "x86_64-linux"]

describe("flake.nix", () => {
  it("has the hashes of this package-lock.json (`node scripts/flake.js` writes them)", () => {
    const lock = createHash("sha256")
      .update(readFileSync(join(root, "package-lock.json")))
      .digest("hex")
    expect(readFileSync(join(root, "flake.nix"), "utf8")).toContain(`lock = "${lock}"`)
  })

  it("has in its package all that a tunnel in the kernel and a master's database need", async () => {
    const world = makeWorld()
    try {
      const out = installPackage(folder(world))
      const target = await world.listen(echoing)
      const [apiPort, tunnelPort, port] = [await world.freePort(), await world.freePort(), await world.freePort()]
      const startMaster = () =>
        world.start(
          [`master://127.0.0.1:${apiPort}?state=${join(out, "state")}`],
          { NP_RELAY: process.platform === "linux" ? "kernel" : "portable" },
          join(out, "lib/nodepass-effect/bin/nodepass.js")
        )
      const master = startMaster()
      const [, key = ""] = /^API key: (\w+)/.exec(await master.line(/^API key: /)) ?? []
      await master.line(/API is ready/)
      for (const url of [
        `server://${tunnelKey}@127.0.0.1:${tunnelPort}/127.0.0.1:${port}?mode=1`,
        `client://${tunnelKey}@127.0.0.1:${tunnelPort}/127.0.0.1:${target.port}?mode=2`
      ]) {
        const { status } = await fetch(`http://127.0.0.1:${apiPort}/api/v1/instances`, {
          method: "POST",
          headers: { "x-api-key": key },
          body: JSON.stringify({ url })
        })
        expect(status).toBe(201)
      }
      const visit = async ({ line }: Nodepass) => {
        await line(/ connected /)
        const visitor = world.connect(port)
        visitor.end("through the tunnel")
        expect(String(await readAll(visitor))).toBe("through the tunnel")
      }
      await visit(master)
      if (process.platform === "linux") await master.line(/relay: kernel/)
      await master.stop()
      await visit(startMaster())
    } finally {
      await world.close()
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
        checks: { [system]: { package: { type: "derivation" }, command: { type: "derivation" }, native: {} } }
      })
    }
  })

  it.skipIf(!hasNix)("runs the command of the package", () => {
    const program: unknown = JSON.parse(nix("eval", "--json", "path:.#apps.x86_64-linux.default.program"))
    expect(program).toMatch(/-nodepass-effect-[\d.]+\/bin\/nodepass$/)
  })
})
