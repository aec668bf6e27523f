/**
 * The API page: every endpoint of the OpenAPI document, with a form to call it.
 */
import { render } from "preact"
import { useEffect, useState } from "preact/hooks"
import { EndpointPanel } from "./EndpointPanel.js"
import * as OpenApi from "./OpenApi.js"
import { rememberedKey } from "./Store.js"

const Docs = () => {
  const [document, setDocument] = useState<OpenApi.Document>()
  const [problem, setProblem] = useState("")
  const [apiKey, setApiKey] = useState(rememberedKey)
  useEffect(() => {
    fetch("openapi.json")
      .then((response) => response.json())
      .then(setDocument)
      .catch((error: unknown) => setProblem(String(error)))
  }, [])
  return (
    <>
      <header>
        <div class="title">
          <h1>nodepass API</h1>
        </div>
        <form class="key" onSubmit={(event) => event.preventDefault()}>
          <label>
            API key{" "}
            <input
              type="password"
              value={apiKey}
              autocomplete="off"
              onInput={({ currentTarget }) => setApiKey(currentTarget.value.trim())}
            />
          </label>
        </form>
        <nav aria-label="Pages" class="actions">
          <a href="./" class="button">
            Instances
          </a>
          <a href="openapi.json" class="button">
            openapi.json
          </a>
        </nav>
      </header>
      <main class="docs">
        {document === undefined
          ? problem || "Loading openapi.json…"
          : OpenApi.groupsOf(document).map(([name, endpoints]) => (
              <section key={name} aria-labelledby={`group-${name}`}>
                <h2 id={`group-${name}`}>{name}</h2>
                {endpoints.map((endpoint) => (
                  <EndpointPanel
                    key={`${endpoint.method} ${endpoint.path}`}
                    document={document}
                    endpoint={endpoint}
                    apiKey={apiKey}
                  />
                ))}
              </section>
            ))}
      </main>
    </>
  )
}

const root = document.querySelector("#app")
if (root !== null) render(<Docs />, root)
