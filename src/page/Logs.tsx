/**
 * The log of an instance: the last lines, and those that come, for as long as whoever reads stays at its end.
 */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks"
import { type Api, Refused } from "./Api.js"

const most = 1000
/** So near to the end is at the end, in pixels. */
const near = 24

export const Logs = ({ api, id }: { readonly api: Api; readonly id: string }) => {
  const [lines, setLines] = useState<ReadonlyArray<string>>([])
  const [trouble, setTrouble] = useState("")
  const [tries, setTries] = useState(0)
  const box = useRef<HTMLPreElement>(null)
  const isAtEnd = useRef(true)

  useEffect(() => {
    const abort = new AbortController()
    let rest = ""
    setLines([])
    setTrouble("")
    isAtEnd.current = true
    const take = (text: string) => {
      const parts = (rest + text).split("\n")
      rest = parts.pop() ?? ""
      setLines((before) => [...before, ...parts].slice(-most))
    }
    api.follow(`instances/${id}/logs?follow=true&lines=${most}`, take, { signal: abort.signal }).then(
      () => setTrouble("the log ended"),
      (error: unknown) => {
        if (!abort.signal.aborted) setTrouble(error instanceof Refused ? error.message : "the log broke off")
      }
    )
    return () => abort.abort()
  }, [api, id, tries])

  useLayoutEffect(() => {
    const { current } = box
    if (current !== null && isAtEnd.current) current.scrollTop = current.scrollHeight
  }, [lines])

  return (
    <section aria-labelledby="logs-title">
      <h3 id="logs-title">Log</h3>
      <pre
        ref={box}
        class="log"
        tabIndex={0}
        role="log"
        aria-labelledby="logs-title"
        onScroll={({ currentTarget: { clientHeight, scrollHeight, scrollTop } }) => {
          isAtEnd.current = scrollHeight - scrollTop - clientHeight < near
        }}
      >
        {lines.length === 0 ? "nothing was logged yet" : lines.join("\n")}
      </pre>
      {trouble === "" ? undefined : (
        <p class="trouble" role="status">
          {trouble}{" "}
          <button type="button" onClick={() => setTries(tries + 1)}>
            Read it again
          </button>
        </p>
      )}
    </section>
  )
}
