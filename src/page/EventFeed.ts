/**
 * The master's event stream; it reconnects and resumes after an interruption.
 */
import { type Api, type Event, Refused } from "./Api.js"

export interface Feed {
  readonly onEvent: (event: Event) => void
  /** The stream starts over: the next events list every instance. */
  readonly onRestart: () => void
  /** Called when the stream is connected or lost. */
  readonly onState: (live: boolean) => void
  /** The key was refused; the feed has ended. */
  readonly onRefused: (error: Refused) => void
}

/** Follows the events until the returned function is called. */
export const follow = (api: Api, feed: Feed): (() => void) => {
  const closed = new AbortController()
  let lastId: string | undefined
  let failures = 0

  /** One response of the master, from its first event to its end. */
  const readStream = async () => {
    const response = new AbortController()
    const reader = makeReader()
    let isFirst = true
    await api.follow(
      "events",
      (text) => {
        for (const { event, id } of reader(text)) {
          lastId = id ?? lastId
          if (isFirst && event.type === "initial") feed.onRestart()
          isFirst = false
          // Missed events are not repeated. The next stream starts with every instance instead.
          if (event.type === "lagged") {
            lastId = undefined
            return response.abort()
          }
          feed.onEvent(event)
        }
      },
      {
        signal: AbortSignal.any([closed.signal, response.signal]),
        headers: lastId === undefined ? {} : { "Last-Event-ID": lastId },
        onOpen: () => {
          failures = 0
          feed.onState(true)
        }
      }
    )
  }
  const run = async (): Promise<void> => {
    while (!closed.signal.aborted) {
      try {
        await readStream()
      } catch (error) {
        if (error instanceof Refused && (error.status === 401 || error.status === 429)) return feed.onRefused(error)
      }
      if (closed.signal.aborted) return
      feed.onState(false)
      const wait = Math.min(300 * 2 ** failures++, 5000)
      await new Promise((resolve) => setTimeout(resolve, wait))
    }
  }
  void run()
  return () => closed.abort()
}

/** Returns a parser that takes chunks of the stream and returns the events they complete. */
export const makeReader = (): ((text: string) => ReadonlyArray<{ readonly event: Event; readonly id?: string }>) => {
  let rest = ""
  return (text) => {
    const blocks = (rest + text).split("\n\n")
    rest = blocks.pop() ?? ""
    return blocks.flatMap((block) => {
      const fields = new Map(
        block.split("\n").map((line) => {
          const [, name = "", value = ""] = /^([^:]*):? ?(.*)$/.exec(line) ?? []
          return [name, value] as const
        })
      )
      const data = fields.get("data")
      const id = fields.get("id")
      if (data === undefined) return []
      const event: Event = JSON.parse(data)
      return [id === undefined ? { event } : { event, id }]
    })
  }
}
