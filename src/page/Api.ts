/**
 * What the page asks of the master, by the key of whoever sits in front of it.
 */
import type { Event, Instance, Version } from "../master/Instance.js"
import type { MasterInfo } from "../master/MasterApi.js"
import type { Point } from "../master/TrafficHistory.js"

export type { Event, Instance, MasterInfo, Point, Version }

/** An answer that is no success: the master's own sentence. */
export class Refused extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

export interface Api {
  readonly key: string
  readonly get: <A>(path: string) => Promise<A>
  readonly send: <A>(method: "DELETE" | "PATCH" | "POST" | "PUT", path: string, body?: unknown) => Promise<Done<A>>
  /** Each piece of a stream of text, until it ends or the signal stops it. */
  readonly follow: (path: string, onText: (text: string) => void, options: FollowOptions) => Promise<void>
}

/** What was asked was done. */
interface Done<A> {
  readonly value: A
  /** Why there was nothing to do, else empty. */
  readonly note: string
}

interface FollowOptions {
  readonly signal: AbortSignal
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** Called when the answer has begun. */
  readonly onOpen?: (() => void) | undefined
}

/** Paths are below the page's own, which is the base path of the API. */
export const make = (key: string): Api => {
  const ask = async (method: string, path: string, { body, headers, signal }: Asked = {}) => {
    const type = body === undefined ? {} : { "Content-Type": "application/json" }
    const response = await fetch(path, {
      method,
      headers: { "X-API-Key": key, ...type, ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal })
    })
    if (!response.ok) throw new Refused(response.status, await sentenceOf(response))
    return response
  }
  // What the master answers is what its schemas say: it is taken at its word.
  const json = async <A>(response: Response): Promise<A> => JSON.parse((await response.text()) || "null")
  return {
    key,
    get: async (path) => json(await ask("GET", path)),
    send: async (method, path, body) => {
      const response = await ask(method, path, { body })
      return { value: await json(response), note: response.headers.get("X-NodePass-Note") ?? "" }
    },
    follow: async (path, onText, { headers, onOpen, signal }) => {
      const response = await ask("GET", path, { headers, signal })
      onOpen?.()
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
      for (let piece = await reader?.read(); piece !== undefined && !piece.done; piece = await reader?.read()) {
        onText(piece.value)
      }
    }
  }
}

// internal

interface Asked {
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly signal?: AbortSignal | undefined
}

const sentenceOf = async (response: Response): Promise<string> => {
  const text = await response.text()
  try {
    const { error }: { readonly error?: unknown } = JSON.parse(text)
    if (typeof error === "string") return error
  } catch {
    // Whatever stands between the page and the master said something of its own.
  }
  return `${response.status} ${response.statusText}`
}
