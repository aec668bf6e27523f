/**
 * What is there in a simulated network: hosts, the ways between them, ports, and connections.
 */
import * as Effect from "effect/Effect"
import * as Address from "../core/Address.js"
import type { Datagram } from "../transport/Transport.js"
import * as SimConnection from "./SimConnection.js"
import type * as SimSide from "./SimSide.js"

export interface Port {
  /** Only the host itself can connect. */
  readonly loopback: boolean
  /** Who connected and was not accepted yet; `arrival` is open when somebody did. */
  readonly backlog: Array<Entry>
  readonly arrival: Effect.Latch
}

/** A UDP port. `resetAt` is when it hears that nobody listens at its peer. */
export interface DatagramPort extends Pick<SimSide.Side, "events" | "resetAt" | "waiting"> {
  readonly address: Address.Address
  /** The only one it hears and speaks to, by its host's name. */
  readonly peer: Address.Address | undefined
  /** The same as it was asked for. */
  readonly associate: Address.Address | undefined
  /** What is on its way or has come, by the time it arrives. */
  inbox: Array<{ readonly at: number; readonly datagram: Datagram }>
  dropped: number
  resetAt: number
}

/** What runs on a host between two crashes. */
export interface Machine {
  readonly name: string
  readonly ports: Map<number, Port>
  readonly datagramPorts: Map<number, DatagramPort>
  crashed: boolean
}

/** Whether the address is the machine's own. */
export const isSelf = (machine: Machine, address: Address.Address): boolean =>
  address.host === machine.name || Address.isWildcard(address) || Address.isLoopback(address)

/** Whether the port listens to a sender: the machine itself, or another one by name. */
export const hears = ({ address, peer }: DatagramPort, self: boolean, name: string, port: number): boolean =>
  peer === undefined ? self || !Address.isLoopback(address) : peer.host === name && peer.port === port

export interface Way extends SimSide.Path {
  /** The chance that a datagram never arrives. */
  readonly loss: number
  readonly healed: Effect.Latch
}

export interface Entry extends SimConnection.Pair {
  readonly path: Way
  /** Whose its two sides are, until a scope closes them. */
  readonly owners: Map<SimSide.Side, Machine>
}

export type World = ReturnType<typeof make>

/** An empty world. `link` is the way between any two hosts; from a host to itself there is none to go. */
export const make = (link: Omit<Way, "healed" | "held">) => {
  const names = new Set<string>()
  const machines = new Map<string, Machine>()
  const ways = new Map<string, Way>()
  const entries: Array<Entry> = []
  const datagramPorts = new Set<DatagramPort>()
  let ephemeral = 40_000

  const on = (way: Way) => entries.filter(({ path }) => path === way)
  return {
    names,
    entries,
    /** Those that no scope has closed yet. */
    datagramPorts,
    on,
    way: (a: string, b: string): Way => {
      const key = JSON.stringify(a < b ? [a, b] : [b, a])
      const way = ways.get(key) ?? {
        ...link,
        ...(a === b ? { latency: 0, jitter: 0, reset: 0, loss: 0 } : {}),
        held: false,
        healed: Effect.unsafeMakeLatch(true)
      }
      ways.set(key, way)
      return way
    },
    machine: (name: string): Machine => {
      const machine = machines.get(name) ?? {
        name,
        ports: new Map<number, Port>(),
        datagramPorts: new Map<number, DatagramPort>(),
        crashed: false
      }
      machines.set(name, machine)
      return machine
    },
    port: (name: string, port: number): Port | undefined => machines.get(name)?.ports.get(port),
    datagramPort: (name: string, port: number): DatagramPort | undefined => machines.get(name)?.datagramPorts.get(port),
    freePort: (machine: Machine): number => {
      do ephemeral = ephemeral === 65_535 ? 40_000 : ephemeral + 1
      while (machine.ports.has(ephemeral) || machine.datagramPorts.has(ephemeral))
      return ephemeral
    },
    partition: (way: Way, now: number): void => {
      way.held = true
      way.healed.unsafeClose()
      for (const entry of on(way)) SimConnection.hold(entry, now)
    },
    heal: (way: Way, now: number): void => {
      way.held = false
      way.healed.unsafeOpen()
      for (const entry of on(way)) SimConnection.release(entry, now)
    },
    crash: (name: string, now: number): void => {
      const machine = machines.get(name)
      if (machine === undefined) return
      machines.delete(name)
      machine.crashed = true
      machine.ports.clear()
      machine.datagramPorts.clear()
      for (const entry of entries) {
        for (const [side, owner] of entry.owners) if (owner === machine) SimConnection.drop(entry, side, now)
      }
    },
    leave: (entry: Entry, side: SimSide.Side): void => {
      entry.owners.delete(side)
      if (entry.owners.size === 0) entries.splice(entries.indexOf(entry), 1)
    }
  }
}
