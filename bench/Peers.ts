/**
 * Other tunnels found on PATH, measured in the same way: without encryption where possible, with the configuration their manuals start with.
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import process from "node:process"
import { freePort } from "../test/live/command/freePort.js"
import { host } from "./Ask.js"
import * as Program from "./Program.js"
import * as Stage from "./Stage.js"
import * as Ways from "./Ways.js"

/** Ports, and a function that writes a file into the run's folder and returns its path. */
interface Place {
  readonly target: number
  readonly visitors: number
  readonly control: number
  readonly file: (name: string, ...lines: ReadonlyArray<string>) => string
}

interface Peer {
  readonly name: string
  readonly needs: ReadonlyArray<string>
  /** In order of start. The first one is started, and the next after its port (`control` by default) accepts connections. */
  readonly commands: (place: Place) => ReadonlyArray<readonly [command: string, ...args: ReadonlyArray<string>]>
  readonly control?: number
}

const nodepass: Peer = {
  name: "nodepass",
  needs: ["nodepass"],
  commands: ({ control, target, visitors }) => [
    ["nodepass", `server://bench@${host}:${control}/${host}:${visitors}?log=error&tls=0&mode=1`],
    ["nodepass", `client://bench@${host}:${control}/${host}:${target}?log=error&mode=2`]
  ]
}

const frp: Peer = {
  name: "frp",
  needs: ["frps", "frpc"],
  commands: ({ control, file, target, visitors }) => [
    ["frps", "-c", file("frps.toml", `bindAddr = "${host}"`, `bindPort = ${control}`, 'auth.token = "bench"')],
    [
      "frpc",
      "-c",
      file(
        "frpc.toml",
        `serverAddr = "${host}"`,
        `serverPort = ${control}`,
        'auth.token = "bench"',
        "transport.tls.enable = false",
        "[[proxies]]",
        'name = "bench"',
        'type = "tcp"',
        `localIP = "${host}"`,
        `localPort = ${target}`,
        `remotePort = ${visitors}`
      )
    ]
  ]
}

const rathole: Peer = {
  name: "rathole",
  needs: ["rathole"],
  commands: ({ control, file, target, visitors }) => {
    const token = 'default_token = "bench"'
    const server = ["[server]", `bind_addr = "${host}:${control}"`, token]
    const client = ["[client]", `remote_addr = "${host}:${control}"`, token]
    const service = (side: string, field: string, port: number) => [
      `[${side}.services.bench]`,
      `${field} = "${host}:${port}"`
    ]
    return [
      ["rathole", "--server", file("rathole-s.toml", ...server, ...service("server", "bind_addr", visitors))],
      ["rathole", "--client", file("rathole-c.toml", ...client, ...service("client", "local_addr", target))]
    ]
  }
}

const chisel: Peer = {
  name: "chisel",
  needs: ["chisel"],
  commands: ({ control, target, visitors }) => [
    ["chisel", "server", "--host", host, "--port", `${control}`, "--reverse"],
    ["chisel", "client", `http://${host}:${control}`, `R:${host}:${visitors}:${host}:${target}`]
  ]
}

const bore: Peer = {
  name: "bore",
  needs: ["bore"],
  control: 7835,
  commands: ({ target, visitors }) => [
    ["bore", "server"],
    ["bore", "local", `${target}`, "--local-host", host, "--to", host, "--port", `${visitors}`]
  ]
}

const ssh: Peer = {
  name: "ssh",
  needs: ["sshd", "ssh", "ssh-keygen"],
  commands: ({ control, file, target, visitors }) => {
    const keys = ["host", "user"].map((name) => {
      const key = Path.join(Stage.folder, `ssh-${name}`)
      spawnSync(find("ssh-keygen") ?? "", ["-q", "-t", "ed25519", "-N", "", "-f", key])
      return key
    })
    const config = file(
      "sshd.conf",
      `ListenAddress ${host}:${control}`,
      `HostKey ${keys[0]}`,
      `AuthorizedKeysFile ${keys[1]}.pub`,
      "PidFile none",
      "PasswordAuthentication no",
      "StrictModes no",
      "UsePAM no"
    )
    const options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "IdentitiesOnly=yes"]
    const words = [...options, "ExitOnForwardFailure=yes"].flatMap((option) => ["-o", option])
    const forward = ["-N", "-q", "-Fnone", "-p", `${control}`, "-i", `${keys[1]}`, "-L"]
    return [
      [find("sshd") ?? "sshd", "-D", "-e", "-f", config],
      ["ssh", ...words, ...forward, `${host}:${visitors}:${host}:${target}`, `${Os.userInfo().username}@${host}`]
    ]
  }
}

const haproxy: Peer = {
  name: "haproxy",
  needs: ["haproxy"],
  commands: ({ control, file, target, visitors }) => {
    const hop = (name: string, from: number, to: number) =>
      [
        "haproxy",
        "-db",
        "-f",
        file(
          name,
          "defaults",
          "  mode tcp",
          "  option splice-auto",
          "  timeout connect 5s",
          "  timeout client 1m",
          "  timeout server 1m",
          "listen hop",
          `  bind ${host}:${from}`,
          `  server next ${host}:${to}`
        )
      ] as const
    return [hop("far.cfg", control, target), hop("near.cfg", visitors, control)]
  }
}

const all: ReadonlyArray<Peer> = [nodepass, frp, rathole, chisel, bore, ssh, haproxy]

/** The path of a command, on PATH or in the folders of system daemons. */
const find = (command: string): string | undefined =>
  [...(process.env["PATH"] ?? "").split(":"), "/usr/sbin"]
    .map((folder) => Path.join(folder, command))
    .find((file) => Fs.statSync(file, { throwIfNoEntry: false })?.isFile() === true)

/** Whether it is a script: `nodepass` on PATH may be this project. */
const isScript = (file: string) => Fs.readFileSync(file).subarray(0, 2).toString("latin1") === "#!"

const listens = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = Net.connect({ port, host })
    socket.on("error", () => resolve(false)).on("connect", () => resolve(true))
    socket.on("connect", () => socket.destroy())
  })

const begin = async (peer: Peer, target: number, visitors: Stage.Visitors): Promise<Ways.Way> => {
  const control = peer.control ?? (await freePort())
  const port = await freePort()
  const file = (name: string, ...lines: ReadonlyArray<string>) => {
    const path = Path.join(Stage.folder, name)
    Fs.writeFileSync(path, `${lines.join("\n")}\n`)
    return path
  }
  const hops: Array<Program.Program> = []
  for (const [command, ...args] of peer.commands({ target, visitors: port, control, file })) {
    for (const end = performance.now() + 5000; hops.length > 0 && performance.now() < end;) {
      if (await listens(control)) break
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    hops.push(Program.start(command, args))
  }
  return Ways.served({ name: peer.name, port, hops: hops.toReversed() }, visitors)
}

/** Starts the peers that are installed; prints why each of the others is skipped. */
export const start = async (target: number, visitors: Stage.Visitors): Promise<ReadonlyArray<Ways.Way>> => {
  const ways: Array<Ways.Way> = []
  for (const peer of all) {
    const missing = peer.needs.filter((command) => find(command) === undefined)
    try {
      if (missing.length > 0) throw new Error(`no ${missing.join(" and no ")} on PATH`)
      if (peer === nodepass && isScript(find("nodepass") ?? "")) throw new Error("the command on PATH is a script")
      ways.push(await begin(peer, target, visitors))
    } catch (error) {
      console.log(`${peer.name}: skipped, ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  return ways
}
