# A stand-in for nixpkgs: the names that our flake asks for, so that it can be evaluated with no network.
{
  outputs = { self }:
    let
      lib = {
        mapAttrs = builtins.mapAttrs;
        importJSON = path: builtins.fromJSON (builtins.readFile path);
        getExe = package: "${package}/bin/${package.meta.mainProgram}";
        fetchers.proxyImpureEnvVars = [ "https_proxy" ];
        licenses.mit.spdxId = "MIT";
      };
      packages = system:
        let
          drv = attrs: derivation ({ inherit system; builder = "/bin/sh"; } // attrs);
          tool = name: drv { inherit name; };
        in
        {
          nodejs_22 = tool "nodejs";
          makeWrapper = tool "make-wrapper";
          stdenvNoCC.mkDerivation = { meta ? { }, ... }@attrs:
            drv ({ name = "${attrs.pname}-${attrs.version}"; } // removeAttrs attrs [ "meta" ]) // { inherit meta; };
          mkShell = { packages }: drv { name = "shell"; inherit packages; };
          runCommand = name: env: command: drv (env // { inherit name command; });
        };
    in
    {
      inherit lib;
      legacyPackages = lib.mapAttrs (system: _: packages system) {
        x86_64-linux = null;
        aarch64-linux = null;
        x86_64-darwin = null;
        aarch64-darwin = null;
      };
    };
}
