/**
 * Calls of the master's API with the user's API key.
 */
import type { Event, Instance, Version } from "../master/Instance.js"
import type { MasterInfo } from "../master/ApiPayloads.js"
import type { Point } from "../master/TrafficHistory.js"

export type { Event, Instance, MasterInfo, Point, Version }

/** The master refused a call; the message is the master's sentence. */
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
  readonly send: <A>(
    method: "DELETE" | "PATCH" | "POST" | "PUT",
    path: string,
    body?: unknown,
    options?: SendOptions
  ) => Promise<Done<A>>
  /** Calls `onText` with each chunk of a text stream, until it ends or the signal aborts it. */
  readonly follow: (path: string, onText: (text: string) => void, options: FollowOptions) => Promise<void>
}

interface SendOptions {
  /** The instance as the user saw it: the master refuses the change if it is of another version by now. */
  readonly seen?: Pick<Instance, "version"> | undefined
}

/** The call succeeded. */
interface Done<A> {
  readonly value: A
  /** Why there was nothing to do; empty otherwise. */
  readonly note: string
}

interface FollowOptions {
  readonly signal: AbortSignal
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** Called when the response starts. */
  readonly onOpen?: (() => void) | undefined
}

/** Paths are relative to the page's own, which is the base path of the API. */
export const make = (key: string): Api => {
  const call = async (method: string, path: string, { body, headers, signal }: CallOptions = {}) => {
    const type = body === undefined ? {} : { "Content-Type": "application/json" }
    const response = await fetch(path, {
      method,
      headers: { "X-API-Key": key, ...type, ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal })
    })
    if (!response.ok) throw new Refused(response.status, await messageOf(response))
    return response
  }
  // The response has the type that the master's schemas give it; it is not validated again.
  const json = async <A>(response: Response): Promise<A> => JSON.parse((await response.text()) || "null")
  return {
    key,
    get: async (path) => json(await call("GET", path)),
    send: async (method, path, body, { seen } = {}) => {
      const headers = seen === undefined ? {} : { "If-Match": `"${seen.version}"` }
      const response = await call(method, path, { body, headers })
      return { value: await json(response), note: response.headers.get("X-NodePass-Note") ?? "" }
    },
    follow: async (path, onText, { headers, onOpen, signal }) => {
      const response = await call("GET", path, { headers, signal })
      onOpen?.()
      const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
      for (let chunk = await reader?.read(); chunk !== undefined && !chunk.done; chunk = await reader?.read()) {
        onText(chunk.value)
      }
    }
  }
}

// internal

interface CallOptions {
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly signal?: AbortSignal | undefined
}

const messageOf = async (response: Response): Promise<string> => {
  const text = await response.text()
  try {
    const { error }: { readonly error?: unknown } = JSON.parse(text)
    if (typeof error === "string") return error
  } catch {
    // A proxy in front of the master answered with something else.
  }
  return `${response.status} ${response.statusText}`
}
