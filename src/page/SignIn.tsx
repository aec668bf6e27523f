/**
 * The sign-in form.
 */
import { useState } from "preact/hooks"
import type { Store } from "./Store.js"

export const SignIn = ({ store: { signIn, state } }: { readonly store: Store }) => {
  const [busy, setBusy] = useState(false)
  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    if (!(event.target instanceof HTMLFormElement) || busy) return
    const key = new FormData(event.target).get("key")
    setBusy(true)
    void signIn(typeof key === "string" ? key.trim() : "").then(() => setBusy(false))
  }
  return (
    <main class="sign-in">
      <form onSubmit={submit}>
        <h1>nodepass</h1>
        <label for="key">API key of this master</label>
        <input
          id="key"
          name="key"
          type="password"
          required
          autofocus
          autocomplete="off"
          autocapitalize="none"
          spellcheck={false}
          aria-describedby="key-hint key-problem"
        />
        <small id="key-hint" class="hint">
          The master printed it at its first start. This tab keeps it until it is closed.
        </small>
        <p id="key-problem" class="problem" role="alert">
          {state.problem}
        </p>
        <div class="actions">
          <button type="submit" class="primary" disabled={busy}>
            Sign in
          </button>
          <a href="docs">API documentation</a>
        </div>
      </form>
    </main>
  )
}
