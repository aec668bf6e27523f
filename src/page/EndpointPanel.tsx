/**
 * One endpoint of the API: its description and a form that calls it.
 */
import { useRef, useState } from "preact/hooks"
import * as OpenApi from "./OpenApi.js"

export interface Props {
  readonly document: OpenApi.Document
  readonly endpoint: OpenApi.Endpoint
  /** The API key of the calls. */
  readonly apiKey: string
}

export const EndpointPanel = ({ apiKey, document, endpoint }: Props) => {
  const { method, operation, path } = endpoint
  const [answer, setAnswer] = useState("")
  const call = useRef<AbortController | undefined>(undefined)
  const [busy, setBusy] = useState(false)
  const schema = OpenApi.bodyOf(operation)
  const parameters = (operation.parameters ?? []).filter((parameter) => parameter.in !== "header")

  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    if (busy) return call.current?.abort()
    if (!(event.target instanceof HTMLFormElement)) return
    const abort = (call.current = new AbortController())
    setBusy(true)
    setAnswer("")
    send(endpoint, {
      fields: new FormData(event.target),
      apiKey,
      signal: abort.signal,
      onText: (text) => setAnswer(text)
    })
      .catch((error: unknown) =>
        setAnswer((before) => `${before}\n${abort.signal.aborted ? "stopped" : String(error)}`)
      )
      .finally(() => setBusy(false))
  }

  return (
    <details class="endpoint">
      <summary>
        <span class={`method ${method.toLowerCase()}`}>{method}</span> <code>{path}</code>
      </summary>
      <form onSubmit={submit}>
        {operation.description === undefined ? undefined : <p>{operation.description}</p>}
        <ul class="answers">
          {Object.entries(operation.responses).map(([status, { content, description }]) => (
            <li key={status}>
              <code>{status}</code> {description}{" "}
              {Object.entries(content ?? {}).map(([type, { schema }]) => (
                <code key={type}>{/json/.test(type) ? OpenApi.textOf(schema) : type}</code>
              ))}
            </li>
          ))}
        </ul>
        {parameters.map(({ description, in: place, name, required = false }) => (
          <label key={name}>
            {name} {description === undefined ? undefined : <small class="hint">{description}</small>}
            <input name={`${place}:${name}`} type="text" required={required} autocomplete="off" spellcheck={false} />
          </label>
        ))}
        {schema === undefined ? undefined : (
          <label>
            body <small class="hint">{OpenApi.textOf(schema)}</small>
            <textarea
              name="body"
              rows={5}
              spellcheck={false}
              defaultValue={JSON.stringify(OpenApi.sampleOf(document, schema), null, 2)}
            />
          </label>
        )}
        <div class="actions">
          <button type="submit" class="primary">
            {busy ? "Stop" : "Send"}
          </button>
        </div>
        {answer === "" ? undefined : (
          <pre class="log" tabIndex={0} aria-label="Response">
            {answer}
          </pre>
        )}
      </form>
    </details>
  )
}

// internal

interface Call {
  readonly fields: FormData
  readonly apiKey: string
  readonly signal: AbortSignal
  /** Called with everything received so far. */
  readonly onText: (text: string) => void
}

/** Characters of a stream that are kept. */
const maxLength = 100_000

const send = async ({ method, path }: OpenApi.Endpoint, { apiKey, fields, onText, signal }: Call): Promise<void> => {
  let url = path
  let body: string | undefined
  const query = new URLSearchParams()
  for (const [field, value] of fields) {
    if (typeof value !== "string") continue
    const [place, name = ""] = field.split(":")
    if (field === "body") body = value
    else if (place === "path") url = url.replace(`{${name}}`, encodeURIComponent(value))
    else if (value !== "") query.set(name, value)
  }
  const response = await fetch(query.size === 0 ? url : `${url}?${query.toString()}`, {
    method,
    signal,
    headers: {
      ...(apiKey === "" ? {} : { "X-API-Key": apiKey }),
      ...(body === undefined ? {} : { "Content-Type": "application/json" })
    },
    ...(body === undefined ? {} : { body })
  })
  const head = `${response.status} ${response.statusText}\n\n`
  onText(head)
  if (/json/.test(response.headers.get("Content-Type") ?? "")) {
    return onText(head + JSON.stringify(await response.json(), null, 2))
  }
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  let text = ""
  for (let chunk = await reader?.read(); chunk !== undefined && !chunk.done; chunk = await reader?.read()) {
    text = (text + chunk.value).slice(-maxLength)
    onText(head + text)
  }
}
