/**
 * The master's events, for as long as the page is open: taken up again where they broke off.
 */
import { type Api, type Event, Refused } from "./Api.js"

export interface Feed {
  readonly onEvent: (event: Event) => void
  /** What was known is out of date: the events that follow begin with every instance. */
  readonly onAnew: () => void
  /** Whether events come, told at each change. */
  readonly onState: (live: boolean) => void
  /** The key is no longer good; nothing more comes. */
  readonly onRefused: (error: Refused) => void
}

/** Follows them until what this answers is called. */
export const follow = (api: Api, feed: Feed): (() => void) => {
  const leave = new AbortController()
  let lastId: string | undefined
  let failures = 0

  /** One answer of the master, from its first event to its end. */
  const once = async () => {
    const own = new AbortController()
    const reader = makeReader()
    let isFirst = true
    await api.follow(
      "events",
      (text) => {
        for (const { event, id } of reader(text)) {
          lastId = id ?? lastId
          if (isFirst && event.type === "initial") feed.onAnew()
          isFirst = false
          // What was missed is not told again: every instance is.
          if (event.type === "lagged") {
            lastId = undefined
            return own.abort()
          }
          feed.onEvent(event)
        }
      },
      {
        signal: AbortSignal.any([leave.signal, own.signal]),
        headers: lastId === undefined ? {} : { "Last-Event-ID": lastId },
        onOpen: () => {
          failures = 0
          feed.onState(true)
        }
      }
    )
  }
  const run = async (): Promise<void> => {
    while (!leave.signal.aborted) {
      try {
        await once()
      } catch (error) {
        if (error instanceof Refused && (error.status === 401 || error.status === 429)) return feed.onRefused(error)
      }
      if (leave.signal.aborted) return
      feed.onState(false)
      const wait = Math.min(300 * 2 ** failures++, 5000)
      await new Promise((resolve) => setTimeout(resolve, wait))
    }
  }
  void run()
  return () => leave.abort()
}

/** What a piece of a stream holds of events, those included that began in the piece before. */
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
