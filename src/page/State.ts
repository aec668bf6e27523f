/**
 * The page's model, and how the master's events change it. Nothing else changes it.
 */
import type { Api, Event, Instance, MasterInfo } from "./Api.js"

/** Bytes a second, each way. */
interface Rate {
  readonly rx: number
  readonly tx: number
}

/** An instance as of its last event. */
export interface Shown {
  readonly instance: Instance
  /** Time of the event on the master's clock, in epoch milliseconds. */
  readonly time: number
  /** When it was received, on this page's clock, in epoch milliseconds. */
  readonly receivedAt: number
  /** Computed from `since` and the sample before it. */
  readonly rate: Rate
  readonly since: Rate & { readonly time: number }
}

export interface State {
  readonly api: Api | undefined
  /** Why the key was refused, or why the master cannot be reached. */
  readonly problem: string
  /** Whether the event stream is connected. */
  readonly live: boolean
  /** The first events have arrived. */
  readonly loaded: boolean
  readonly info: MasterInfo | undefined
  readonly instances: ReadonlyMap<string, Shown>
}

export type Action =
  | { readonly _tag: "SignedIn"; readonly api: Api; readonly info: MasterInfo }
  | { readonly _tag: "SignedOut"; readonly reason: string }
  | { readonly _tag: "Live"; readonly live: boolean }
  | { readonly _tag: "Info"; readonly info: MasterInfo; readonly now: number }
  /** `replaces`: the events list every instance; earlier ones are dropped. */
  | { readonly _tag: "Events"; readonly events: ReadonlyArray<Event>; readonly replaces: boolean; readonly now: number }

export const nothing: State = {
  api: undefined,
  problem: "",
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
      return { ...nothing, problem: action.reason }
    case "Live":
      return { ...state, live: action.live }
    case "Info":
      return { ...state, info: action.info, instances: withIdleRates(state.instances, action.now) }
    case "Events": {
      const before = action.replaces ? new Map<string, Shown>() : state.instances
      return { ...state, instances: withEvents(before, action.events, action.now), loaded: true }
    }
  }
}

// internal

/** Samples closer than this give no useful rate, in milliseconds; unchanged samples need the longer distance. */
const minDistance = { changed: 200, unchanged: 4000 }
/** Without an event for so long, the rate of an instance is zero, in milliseconds. */
const idleAfter = 12_000
/** The entry of the API key. */
const keyId = "********"
const zero: Rate = { rx: 0, tx: 0 }

const withEvents = (before: State["instances"], events: ReadonlyArray<Event>, now: number): State["instances"] => {
  const instances = new Map(before)
  for (const { instance, time, type } of events) {
    if (instance === null || instance.id === keyId) continue
    if (type === "delete") instances.delete(instance.id)
    else instances.set(instance.id, next(instances.get(instance.id), instance, Date.parse(time), now))
  }
  return instances
}

const next = (before: Shown | undefined, instance: Instance, time: number, receivedAt: number): Shown => {
  const sums = { time, rx: instance.tcprx + instance.udprx, tx: instance.tcptx + instance.udptx }
  if (before === undefined) return { instance, time, receivedAt, rate: zero, since: sums }
  const { rate, since } = before
  const millis = time - since.time
  const isSame = sums.rx === since.rx && sums.tx === since.tx
  if (millis < minDistance[isSame ? "unchanged" : "changed"]) return { instance, time, receivedAt, rate, since }
  const perSecond = (direction: keyof Rate) => (Math.max(0, sums[direction] - since[direction]) * 1000) / millis
  return { instance, time, receivedAt, rate: { rx: perSecond("rx"), tx: perSecond("tx") }, since: sums }
}

const withIdleRates = (instances: State["instances"], now: number): State["instances"] => {
  const isIdle = ({ receivedAt, rate }: Shown) => rate.rx + rate.tx > 0 && now - receivedAt > idleAfter
  if (![...instances.values()].some(isIdle)) return instances
  return new Map(Array.from(instances, ([id, shown]) => [id, isIdle(shown) ? { ...shown, rate: zero } : shown]))
}
