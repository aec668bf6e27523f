/**
 * The master's events as server-sent events: blocks of text, their ids, and the bytes that are sent.
 */
import * as Option from "effect/Option"
import { type Event, formatTime, type Instance } from "./Instance.js"

/** Bytes in one piece that is sent, except for a single event that is larger. Each slow subscriber may hold one piece. */
export const maxChunkBytes = 65_536

const utf8 = new TextEncoder()

export const encode = (blocks: ReadonlyArray<string>): Uint8Array => utf8.encode(blocks.join(""))

/** The blocks as chunks of about `maxChunkBytes`. */
export const chunks = (blocks: ReadonlyArray<string>): ReadonlyArray<Uint8Array> => {
  const chunks: Array<Uint8Array> = []
  let text = ""
  for (const block of blocks) {
    text += block
    if (text.length < maxChunkBytes) continue
    chunks.push(utf8.encode(text))
    text = ""
  }
  if (text !== "") chunks.push(utf8.encode(text))
  return chunks
}

/** The first block of a stream: how long a client waits before it connects again. */
export const retry = "retry: 3000\n\n"

/** The block sent when there are no events. */
export const comment = ": still here\n\n"

export const block = (event: Event, id?: string): string =>
  `event: instance\n${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(event)}\n\n`

/** The block of an instance that existed when the subscription started. */
export const initial = (instance: Instance, time: number, id?: string): string =>
  block({ type: "initial", time: formatTime(time), instance, logs: "" }, id)

/** The block in place of lost events, with the time of the event after them. */
export const lagged = (lost: number, [next]: ReadonlyArray<Event>): string =>
  block({ type: "lagged", time: next?.time ?? "", instance: null, logs: `${lost} events lost` })

/** Ids name the run of the master: event numbers start at 0 in each run. */
export const id = (run: string, number: number): string => `${run}-${number}`

/** The number in an id of this run. */
export const numberOf = (run: string, id: string): Option.Option<number> => {
  const [, idRun, number] = /^(.*)-(-?\d{1,15})$/.exec(id) ?? []
  return idRun === run && number !== undefined ? Option.some(Number(number)) : Option.none()
}
