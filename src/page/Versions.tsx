/**
 * The versions of an instance's URL, with a rollback to each.
 */
import { useEffect, useState } from "preact/hooks"
import type { Api, Instance, Version } from "./Api.js"
import { masked } from "./Format.js"

interface Props {
  readonly api: Api
  readonly instance: Instance
  readonly onRollBack: (version: Version) => void
}

export const Versions = ({ api, instance, onRollBack }: Props) => {
  const [versions, setVersions] = useState<ReadonlyArray<Version>>([])
  const [problem, setProblem] = useState("")

  useEffect(() => {
    let open = true
    api.get<ReadonlyArray<Version>>(`instances/${instance.id}/versions`).then(
      (versions) => open && setVersions(versions),
      (error: unknown) => open && setProblem(error instanceof Error ? error.message : String(error))
    )
    return () => {
      open = false
    }
  }, [api, instance.id, instance.version])

  return (
    <section aria-labelledby="versions-title">
      <h3 id="versions-title">Versions</h3>
      <ul class="versions">
        {versions.map((version) => (
          <li key={version.version}>
            <span class="number">{version.version}</span>
            <code class="url">{masked(version.url)}</code>
            <time dateTime={version.time}>{new Date(version.time).toLocaleString()}</time>
            {version.current ? (
              <span class="badge">current</span>
            ) : (
              <button
                type="button"
                aria-label={`Roll back to version ${version.version}`}
                onClick={() => onRollBack(version)}
              >
                Roll back
              </button>
            )}
          </li>
        ))}
      </ul>
      <p class="problem" role="alert">
        {problem}
      </p>
    </section>
  )
}
