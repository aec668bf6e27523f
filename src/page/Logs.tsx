/**
 * The log of an instance: the last lines and new ones. It scrolls along while the reader is at its end.
 */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks"
import { type Api, Refused } from "./Api.js"

const maxLines = 1000
/** This close to the end counts as the end, in pixels. */
const endMargin = 24

export const Logs = ({ api, id }: { readonly api: Api; readonly id: string }) => {
  const [lines, setLines] = useState<ReadonlyArray<string>>([])
  const [problem, setProblem] = useState("")
  const [tries, setTries] = useState(0)
  const box = useRef<HTMLPreElement>(null)
  const isAtEnd = useRef(true)

  useEffect(() => {
    const abort = new AbortController()
    let rest = ""
    setLines([])
    setProblem("")
    isAtEnd.current = true
    const append = (text: string) => {
      const parts = (rest + text).split("\n")
      rest = parts.pop() ?? ""
      setLines((before) => [...before, ...parts].slice(-maxLines))
    }
    api.follow(`instances/${id}/logs?follow=true&lines=${maxLines}`, append, { signal: abort.signal }).then(
      () => setProblem("the log ended"),
      (error: unknown) => {
        if (!abort.signal.aborted)
          setProblem(error instanceof Refused ? error.message : "the connection to the log was lost")
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
          isAtEnd.current = scrollHeight - scrollTop - clientHeight < endMargin
        }}
      >
        {lines.length === 0 ? "no log lines yet" : lines.join("\n")}
      </pre>
      {problem === "" ? undefined : (
        <p class="problem" role="status">
          {problem}{" "}
          <button type="button" onClick={() => setTries(tries + 1)}>
            Reload
          </button>
        </p>
      )}
    </section>
  )
}
