/**
 * What the page knows, and what the master's events make of it: the one place where that changes.
 */
import type { Api, Event, Instance, MasterInfo } from "./Api.js"

/** Bytes a second, each way. */
interface Rate {
  readonly rx: number
  readonly tx: number
}

/** An instance as the last event had it. */
export interface Shown {
  readonly instance: Instance
  /** By the master's clock, epoch milliseconds. */
  readonly time: number
  /** By this page's clock, epoch milliseconds. */
  readonly heard: number
  /** Between the figures of `since` and those before. */
  readonly rate: Rate
  readonly since: Rate & { readonly time: number }
}

export interface State {
  readonly api: Api | undefined
  /** Why the key was refused, or the master cannot be asked. */
  readonly trouble: string
  /** Whether events come. */
  readonly live: boolean
  /** The first events have come. */
  readonly loaded: boolean
  readonly info: MasterInfo | undefined
  readonly instances: ReadonlyMap<string, Shown>
}

export type Action =
  | { readonly _tag: "SignedIn"; readonly api: Api; readonly info: MasterInfo }
  | { readonly _tag: "SignedOut"; readonly why: string }
  | { readonly _tag: "Live"; readonly live: boolean }
  | { readonly _tag: "Info"; readonly info: MasterInfo; readonly now: number }
  /** `anew`: nothing of before counts. */
  | { readonly _tag: "Events"; readonly events: ReadonlyArray<Event>; readonly anew: boolean; readonly now: number }

export const nothing: State = {
  api: undefined,
  trouble: "",
  live: false,
  loaded: false,
  info: undefined,
  instances: new Map()
}

export const reduce = (state: State, action: Action): State => {
  switch (action._tag) {
    case "SignedIn":
      return { ...nothing, api: action.api, info: action.info }
    case "SignedOut":
      return { ...nothing, trouble: action.why }
    case "Live":
      return { ...state, live: action.live }
    case "Info":
      return { ...state, info: action.info, instances: quieted(state.instances, action.now) }
    case "Events": {
      const before = action.anew ? new Map<string, Shown>() : state.instances
      return { ...state, instances: told(before, action.events, action.now), loaded: true }
    }
  }
}

// internal

/** Figures nearer to each other than this say nothing of a rate, in milliseconds; the same figures, nearer than that. */
const nearest = { other: 200, same: 4000 }
/** An instance of which nothing is heard for so long moves nothing. */
const silence = 12_000
/** The entry that stands for the key. */
const keyId = "********"
const still: Rate = { rx: 0, tx: 0 }

const told = (before: State["instances"], events: ReadonlyArray<Event>, now: number): State["instances"] => {
  const instances = new Map(before)
  for (const { instance, time, type } of events) {
    if (instance === null || instance.id === keyId) continue
    if (type === "delete") instances.delete(instance.id)
    else instances.set(instance.id, next(instances.get(instance.id), instance, Date.parse(time), now))
  }
  return instances
}

const next = (before: Shown | undefined, instance: Instance, time: number, heard: number): Shown => {
  const sums = { time, rx: instance.tcprx + instance.udprx, tx: instance.tcptx + instance.udptx }
  if (before === undefined) return { instance, time, heard, rate: still, since: sums }
  const { rate, since } = before
  const millis = time - since.time
  const isSame = sums.rx === since.rx && sums.tx === since.tx
  if (millis < nearest[isSame ? "same" : "other"]) return { instance, time, heard, rate, since }
  const each = (way: keyof Rate) => (Math.max(0, sums[way] - since[way]) * 1000) / millis
  return { instance, time, heard, rate: { rx: each("rx"), tx: each("tx") }, since: sums }
}

const quieted = (instances: State["instances"], now: number): State["instances"] => {
  const isOver = ({ heard, rate }: Shown) => rate.rx + rate.tx > 0 && now - heard > silence
  if (![...instances.values()].some(isOver)) return instances
  return new Map(Array.from(instances, ([id, shown]) => [id, isOver(shown) ? { ...shown, rate: still } : shown]))
}
