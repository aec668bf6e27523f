/**
 * The state of a simulated network: hosts, the paths between them, ports and connections.
 */
import * as Effect from "effect/Effect"
import * as Address from "../core/Address.js"
import type { Datagram } from "../transport/Transport.js"
import * as SimConnection from "./SimConnection.js"
import type * as SimSide from "./SimSide.js"

export interface Port {
  /** Only the host itself can connect. */
  readonly loopback: boolean
  /** Connections that were not accepted yet. `arrival` opens when one is added. */
  readonly backlog: Array<OwnedPair>
  readonly arrival: Effect.Latch
}

/** A UDP port. `resetAt` is when the report arrives that the peer's port is closed. */
export interface DatagramPort extends Pick<SimSide.Side, "events" | "resetAt" | "waiting"> {
  readonly address: Address.Address
  /** The only peer that it exchanges datagrams with, by the name of its host. */
  readonly peer: Address.Address | undefined
  /** The same peer, as the caller wrote it. */
  readonly associate: Address.Address | undefined
  /** Datagrams in transit or received, by time of arrival. */
  inbox: Array<{ readonly at: number; readonly datagram: Datagram }>
  dropped: number
  resetAt: number
}

/** A host between two crashes. */
export interface Machine {
  readonly name: string
  readonly ports: Map<number, Port>
  readonly datagramPorts: Map<number, DatagramPort>
  crashed: boolean
}

/** Whether the address is the machine's own. */
export const isSelf = (machine: Machine, address: Address.Address): boolean =>
  address.host === machine.name || Address.isWildcard(address) || Address.isLoopback(address)

/** Whether the port receives from a sender: the machine itself, or another one by name. */
export const accepts = ({ address, peer }: DatagramPort, self: boolean, name: string, port: number): boolean =>
  peer === undefined ? self || !Address.isLoopback(address) : peer.host === name && peer.port === port

export interface HostPath extends SimSide.Path {
  /** The probability that a datagram is lost. */
  readonly loss: number
  readonly healed: Effect.Latch
}

export interface OwnedPair extends SimConnection.Pair {
  readonly path: HostPath
  /** The machines that own its sides, until a scope closes them. */
  readonly owners: Map<SimSide.Side, Machine>
}

export type World = ReturnType<typeof make>

/** An empty world. `link` describes the path between any two hosts. A host reaches itself without delay or loss. */
export const make = (link: Omit<HostPath, "healed" | "held">) => {
  const names = new Set<string>()
  const machines = new Map<string, Machine>()
  const paths = new Map<string, HostPath>()
  const pairs: Array<OwnedPair> = []
  const datagramPorts = new Set<DatagramPort>()
  let ephemeral = 40_000

  const on = (path: HostPath) => pairs.filter((pair) => pair.path === path)
  return {
    names,
    pairs,
    /** UDP ports that are not closed yet. */
    datagramPorts,
    on,
    path: (a: string, b: string): HostPath => {
      const key = JSON.stringify(a < b ? [a, b] : [b, a])
      const path = paths.get(key) ?? {
        ...link,
        ...(a === b ? { latency: 0, jitter: 0, reset: 0, loss: 0 } : {}),
        held: false,
        healed: Effect.unsafeMakeLatch(true)
      }
      paths.set(key, path)
      return path
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
    partition: (path: HostPath, now: number): void => {
      path.held = true
      path.healed.unsafeClose()
      for (const pair of on(path)) SimConnection.hold(pair, now)
    },
    heal: (path: HostPath, now: number): void => {
      path.held = false
      path.healed.unsafeOpen()
      for (const pair of on(path)) SimConnection.release(pair, now)
    },
    crash: (name: string, now: number): void => {
      const machine = machines.get(name)
      if (machine === undefined) return
      machines.delete(name)
      machine.crashed = true
      machine.ports.clear()
      machine.datagramPorts.clear()
      for (const pair of pairs) {
        for (const [side, owner] of pair.owners) if (owner === machine) SimConnection.drop(pair, side, now)
      }
    },
    leave: (pair: OwnedPair, side: SimSide.Side): void => {
      pair.owners.delete(side)
      if (pair.owners.size === 0) pairs.splice(pairs.indexOf(pair), 1)
    }
  }
}
