# Reduces a preview to what the comment needs: no times, file paths or outputs. Writes one step per line.

def cut_state($type; $op):
  {custom, urn, protect, taint, inputs}
  | if ($type | startswith("command:")) then .inputs |= (. // {} | {create, environment, stdin})
    elif $op == "same" then .inputs |= {instanceType, associatePublicIpAddress, rootBlockDevice: {volumeSize: .rootBlockDevice?.volumeSize?}}
    else . end
  | del(.. | nulls);

# Unchanged resources are needed where they cost something.
def costs: test("aws:(ec2/(instance:Instance|eip:Eip|eipAssociation:EipAssociation)|secretsmanager/secret:Secret)::");

# Shortens standard input that does not change or that installs scripts.
def cut_texts:
  if (.oldState.inputs.stdin? == .newState.inputs.stdin? or ((.newState // .oldState).inputs.stdin? // "" | startswith("=== ")))
  then (.oldState.inputs?, .newState.inputs? | objects | .stdin | strings) |= .[:100] else . end;

[.diagnostics[]? | select(.message | startswith("warning: using pulumi-") | not) | {urn, message, severity} | del(.[] | nulls)] as $diagnostics
| (.steps // [] | map(select(.op != "refresh") | {(.oldState.urn // .urn): .}) | add // {}) as $steps_by_urn
| [.steps[]?
   | select((.newState // .oldState).custom)
   # Keeps a refresh only where the cloud and the state are not the same.
   | select(.op != "refresh" or ($steps_by_urn | length > 0) and $steps_by_urn[.urn].oldState.inputs != .oldState.inputs)
   | select(.op != "same" or (.urn | costs) or ($steps_by_urn[.urn].oldState.inputs != .newState.inputs))
   | (.urn | split("::")[2] | split("$")[-1]) as $type | .op as $op
   | (.oldState, .newState | objects) |= cut_state($type; $op)
   | {op, urn, diffReasons, replaceReasons, oldState, newState} | del(.[] | nulls)
   | cut_texts]
| (map(tojson) | join(",\n")) as $steps
| "{\n\"steps\": [\n\($steps)\n],\n\"diagnostics\": \($diagnostics | tojson)\n}"
