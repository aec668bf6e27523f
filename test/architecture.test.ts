import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"

/** Lowest first. A module imports only from the ranks above its own line. */
const ranks: ReadonlyArray<ReadonlyArray<string>> = [
  [
    "Address",
    "Backoff",
    "Certificates",
    "ChildFiber",
    "Crypto",
    "DatagramFrame",
    "Deadlines",
    "Deflate",
    "Frame",
    "GoDuration",
    "Liveness",
    "LogLine",
    "Once",
    "SessionStore"
  ],
  ["HostFigures", "Instance", "Journal", "Page", "TunnelEvent"],
  ["EventBus"],
  [
    "EventStream",
    "InstanceLog",
    "InstanceStore",
    "Meter",
    "PoolPolicy",
    "Refusals",
    "Slots",
    "Throttle",
    "TrafficHistory"
  ],
  ["MasterApi"],
  ["Key", "Parameter", "ProxyHeader", "Settings", "Signal", "Tls", "UrlError"],
  ["Outbox", "Transport"],
  ["Checkpoint", "Dialect", "Flow", "Keyring", "Relay", "Shelf", "Targets", "UrlQuery"],
  ["DatagramRelay", "Handshake", "Ingress", "SignalBus", "TunnelUrl"],
  ["Gate", "MasterClient", "MasterUrl", "Pool", "UdpSessions"],
  ["AcceptingPool", "DialingPool", "Egress", "Front"],
  ["Session", "SessionState"],
  ["Failover", "Link"],
  ["Client", "Server"],
  ["Role"],
  ["Tunnel"],
  ["ManagedTunnel"],
  ["Master"],
  ["ApiKey", "Metrics"],
  ["Requests"],
  ["MasterServer"],
  ["Operation"],
  ["Operator"],
  ["Cli"],
  ["index"]
]

const source = Path.join(import.meta.dirname, "../src")
const modules = Fs.readdirSync(source)
  .filter((name) => name.endsWith(".ts"))
  .map((name) => name.slice(0, -3))
const importsOf = (file: string) =>
  Array.from(Fs.readFileSync(Path.join(source, file), "utf8").matchAll(/from "([^"]+)"/g), ([, from]) => from ?? "")

describe("architecture", () => {
  it("every module has a rank", () => {
    assert.deepStrictEqual(ranks.flat().toSorted(), modules.toSorted())
  })

  it.each(modules)("%s imports only lower ranks, and no Node", (name) => {
    const own = ranks.findIndex((rank) => rank.includes(name))
    for (const from of importsOf(`${name}.ts`)) {
      assert.isFalse(from.startsWith("node:"), `${name} imports ${from}`)
      if (!from.startsWith(".")) continue
      const rank = ranks.findIndex((rank) => rank.includes(from.slice("./".length, -".js".length)))
      assert.isTrue(rank >= 0 && rank < own, `${name} imports ${from}`)
    }
  })

  it("nothing below takes time, chance or promises from anywhere but Effect", () => {
    for (const name of modules) {
      const text = Fs.readFileSync(Path.join(source, `${name}.ts`), "utf8")
      assert.notMatch(text, /\bDate\.now\(|\bMath\.random\(|\bsetTimeout\(|\bEffect\.promise\(|\bprocess\.\w/, name)
    }
  })
})
