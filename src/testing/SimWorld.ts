/**
 * What is there in a simulated network: hosts, the ways between them, ports, and connections.
 */
import * as Effect from "effect/Effect"
import * as SimConnection from "./SimConnection.js"
import type * as SimSide from "./SimSide.js"

export interface Port {
  /** Only the host itself can connect. */
  readonly loopback: boolean
  /** Who connected and was not accepted yet; `arrival` is open when somebody did. */
  readonly backlog: Array<Entry>
  readonly arrival: Effect.Latch
}

/** What runs on a host between two crashes. */
export interface Machine {
  readonly name: string
  readonly ports: Map<number, Port>
  crashed: boolean
}

export interface Way extends SimSide.Path {
  readonly healed: Effect.Latch
}

export interface Entry extends SimConnection.Pair {
  readonly path: Way
  /** Whose its two sides are, until a scope closes them. */
  readonly owners: Map<SimSide.Side, Machine>
}

export type World = ReturnType<typeof make>

/** An empty world. `link` is the way between any two hosts; from a host to itself there is none to go. */
export const make = (link: Omit<SimSide.Path, "held">) => {
  const names = new Set<string>()
  const machines = new Map<string, Machine>()
  const ways = new Map<string, Way>()
  const entries: Array<Entry> = []
  let ephemeral = 40_000

  const on = (way: Way) => entries.filter(({ path }) => path === way)
  return {
    names,
    entries,
    on,
    way: (a: string, b: string): Way => {
      const key = JSON.stringify(a < b ? [a, b] : [b, a])
      const way = ways.get(key) ?? {
        ...link,
        ...(a === b ? { latency: 0, jitter: 0, reset: 0 } : {}),
        held: false,
        healed: Effect.unsafeMakeLatch(true)
      }
      ways.set(key, way)
      return way
    },
    machine: (name: string): Machine => {
      const machine = machines.get(name) ?? { name, ports: new Map<number, Port>(), crashed: false }
      machines.set(name, machine)
      return machine
    },
    port: (name: string, port: number): Port | undefined => machines.get(name)?.ports.get(port),
    freePort: (machine: Machine): number => {
      do ephemeral = ephemeral === 65_535 ? 40_000 : ephemeral + 1
      while (machine.ports.has(ephemeral))
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
