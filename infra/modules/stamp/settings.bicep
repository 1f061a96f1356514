// The app settings of one region. None of them is a secret.

@description('The region as in regions.json.')
param region object

@description('Resource id of the identity.')
param identityId string

@description('Client id of the identity.')
param clientId string

@description('Storage of the Functions host.')
param storageName string

@description('Address of the package on the Premium plan.')
param packageUrl string

@description('Global address of the Cosmos DB account.')
param cosmosEndpoint string

@description('Address of this region\'s SignalR Service.')
param signalREndpoint string

@description('Connection string of Application Insights. It names the component; its key is not accepted without a token.')
param insightsConnectionString string

@description('URL of an OpenTelemetry collector, OTLP over HTTP. Empty: the handler sends none.')
param otlpEndpoint string

@description('FC1 or EP1.')
param plan string

var common = {
  REGION: region.name
  PreferredLocations: join(region.preferredLocations, ',')
  MATERIALIZED_ORIGINS: region.name
  NOTIFICATION_SCOPE: 'all'
  LOG_FORMAT: 'json'
  RUST_LOG: 'info,actix_server=warn'

  CosmosDBConnection__accountEndpoint: cosmosEndpoint
  CosmosDBConnection__credential: 'managedidentity'
  CosmosDBConnection__clientId: clientId

  AzureSignalRConnectionString__serviceUri: signalREndpoint
  AzureSignalRConnectionString__credential: 'managedidentity'
  AzureSignalRConnectionString__clientId: clientId

  AzureWebJobsStorage__accountName: storageName
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: clientId

  APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${clientId};Authorization=AAD'
}

// Flex Consumption refuses these: there they are part of the app itself.
var premium = {
  FUNCTIONS_WORKER_RUNTIME: 'custom'
  FUNCTIONS_EXTENSION_VERSION: '~4'
  WEBSITE_RUN_FROM_PACKAGE: packageUrl
  WEBSITE_RUN_FROM_PACKAGE_BLOB_MI_RESOURCE_ID: identityId
}

var telemetry = empty(otlpEndpoint) ? {} : { OTEL_EXPORTER_OTLP_ENDPOINT: otlpEndpoint }

output values object = union(common, telemetry, plan == 'EP1' ? premium : {})
