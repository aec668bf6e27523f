/**
 * The master's events: the last of them, for every subscriber to read.
 */
import type * as Clock from "effect/Clock"
import { type Event, formatTime, type Instance, type Meta } from "./Instance.js"
import * as Journal from "./Journal.js"

export interface MasterEvents {
  readonly journal: Journal.Journal<Event>
  /** Appends an event with the current time. */
  readonly publish: (type: Event["type"], instance: Instance | null, logs?: string) => void
}

export const make = (clock: Clock.Clock): MasterEvents => {
  const journal = Journal.make<Event>({ limit: maxEvents, size: { limit: maxBytes, of: sizeOf } })
  return {
    journal,
    publish: (type, instance, logs = "") =>
      journal.append({ type, time: formatTime(clock.unsafeCurrentTimeMillis()), instance, logs })
  }
}

// internal

const maxEvents = 4096
const maxBytes = 8_388_608

/** An estimate, in bytes. */
const sizeOf = ({ instance, logs }: Event): number =>
  300 + logs.length + (instance === null ? 0 : instance.url.length + instance.config.length + metaSize(instance.meta))

const metaSize = ({ peer, tags }: Meta): number =>
  Object.entries(tags).reduce((sum, [name, value]) => sum + name.length + value.length, 600 + peer.sid.length)
