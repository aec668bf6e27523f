/**
 * The page of the API's documentation: reads the OpenAPI text, shows each endpoint, and sends requests. Loads nothing else.
 */

/** HTML; `openapi` is where the text is, seen from the page. */
export const html = (openapi: string): string => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>nodepass API</title>
<style>
:root{color-scheme:light dark;--line:#8884}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
header{display:flex;flex-wrap:wrap;gap:1rem;align-items:center}h1{font-size:1.4rem;margin:0}
details{border:1px solid var(--line);border-radius:6px;margin:.4rem 0;padding:.4rem .8rem}
summary{cursor:pointer}summary code{font-weight:600}
.method{display:inline-block;width:4.5rem;font:600 13px ui-monospace,monospace}
input,textarea{font:13px ui-monospace,monospace;padding:.3rem;width:100%;box-sizing:border-box}
label{display:block;margin:.4rem 0}pre{overflow:auto;max-height:24rem;border:1px solid var(--line);padding:.5rem;font-size:13px}
button{padding:.3rem 1rem}small{opacity:.75}
</style></head><body>
<header><h1>nodepass API</h1><label>API key <input id="key" type="password" autocomplete="off" size="36"></label>
<a href="${openapi}">openapi.json</a></header>
<main id="list">loading…</main>
<script>
const $ = (tag, props = {}, ...children) => { const e = Object.assign(document.createElement(tag), props); e.append(...children); return e }
const list = document.getElementById("list")
const show = (spec) => {
  const resolve = (s) => s && s.$ref ? resolve(s.$ref.split("/").slice(1).reduce((at, part) => at[part], spec)) : s
  const sample = (s) => {
    s = resolve(s) || {}
    if (s.enum) return s.enum[0]
    if (s.anyOf) return sample(s.anyOf[0])
    if (s.type === "object" || s.properties) return Object.fromEntries(Object.entries(s.properties || {}).map(([k, v]) => [k, sample(v)]))
    return s.type === "array" ? [] : s.type === "boolean" ? true : s.type === "number" || s.type === "integer" ? 1 : ""
  }
  list.replaceChildren(...Object.entries(spec.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, op]) => {
    const fields = (op.parameters || []).filter((p) => p.in !== "header").map((p) => {
      const input = $("input", { placeholder: p.required ? "required" : "" })
      return { p, input, label: $("label", {}, p.name + " ", $("small", { textContent: p.description || "" }), input) }
    })
    const schema = op.requestBody?.content?.["application/json"]?.schema
    const body = schema && $("textarea", { rows: 5, value: JSON.stringify(sample(schema), null, 2) })
    const out = $("pre", { hidden: true })
    let stop
    const send = $("button", { textContent: "Send" })
    send.onclick = async () => {
      if (stop) { stop.abort(); return }
      stop = new AbortController(); send.textContent = "Stop"; out.hidden = false; out.textContent = ""
      try {
        let url = path
        const query = new URLSearchParams()
        for (const { p, input } of fields) {
          if (p.in === "path") url = url.replace("{" + p.name + "}", encodeURIComponent(input.value))
          else if (input.value !== "") query.set(p.name, input.value)
        }
        const headers = {}
        const key = document.getElementById("key").value
        if (key) headers["X-API-Key"] = key
        if (body) headers["Content-Type"] = "application/json"
        const response = await fetch(url + (query.size ? "?" + query : ""), { method: method.toUpperCase(), headers, body: body && body.value, signal: stop.signal })
        out.textContent = response.status + " " + response.statusText + "\\n\\n"
        if (!response.body) return
        const json = (response.headers.get("content-type") || "").includes("json")
        if (json) { const text = await response.text(); try { out.textContent += JSON.stringify(JSON.parse(text), null, 2) } catch { out.textContent += text } return }
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
        for (;;) { const { done, value } = await reader.read(); if (done) break; out.textContent = (out.textContent + value).slice(-100000) }
      } catch (error) { out.textContent += String(error) } finally { stop = undefined; send.textContent = "Send" }
    }
    const answers = Object.entries(op.responses).map(([status]) => status).join(" ")
    return $("details", {}, $("summary", {}, $("span", { className: "method", textContent: method.toUpperCase() }), $("code", { textContent: path })),
      $("p", { textContent: op.description || "" }), $("small", { textContent: "answers " + answers + (op.security?.length ? ", asks for the key" : "") }),
      ...fields.map((f) => f.label), ...(body ? [body] : []), $("div", {}, send), out)
  })))
}
fetch("${openapi}").then((r) => r.json()).then(show, (error) => { list.textContent = String(error) })
</script></body></html>
`
